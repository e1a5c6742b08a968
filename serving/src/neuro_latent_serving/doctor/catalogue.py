"""Everything that can be found: stable ids, how bad each is, and what it means (``docs/doctor.md`` is this table)."""

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is."""

    NOTE = 1  # worth knowing
    WARNING = 2  # it works, but not as well or as safely as it should
    ERROR = 3  # the server does not start, or answers wrongly


NOTE, WARNING, ERROR = Severity

KINDS: dict[str, tuple[Severity, str]] = {
    # versions
    "python-unsupported": (ERROR, "this Python is older than the distributions allow"),
    "requirement-unmet": (ERROR, "a package that a distribution needs is missing, or of a version that does not fit"),
    # server
    "server-missing": (ERROR, "no tritonserver, or one without backends"),
    "server-insecure": (WARNING, "older than the fixes of CVE-2025-23319, -23320 and -23334: for 127.0.0.1 only"),
    "server-exposed": (ERROR, "one without these fixes is to listen on a network: whoever reaches it may run programs"),
    "server-old": (NOTE, "older than the release that production images are made from"),
    "server-version-unknown": (NOTE, "the version of the tritonserver cannot be told"),
    "stub-missing": (ERROR, "the python backend has no stub for this Python"),
    "libraries-missing": (ERROR, "shared libraries that tritonserver or its python stub needs are not installed"),
    "temporary-folder-unsafe": (ERROR, "no folder for temporary files whose path a shell takes as it is"),
    "backend-missing": (ERROR, "a model needs a backend that this tritonserver does not have"),
    "backend-stand-in": (NOTE, "Python stands in for one of Triton's own backends: the same answers, slower"),
    # machine
    "port-taken": (ERROR, "another program listens on a port"),
    "port-served": (NOTE, "a server of this project listens on a port already"),
    "shared-memory-small": (ERROR, "/dev/shm is too small for the python models to start"),
    "shared-memory-tight": (WARNING, "/dev/shm is too small for full batches of long prompts"),
    "memory-low": (WARNING, "the machine or the container has less memory than the models are likely to take"),
    "open-files-low": (WARNING, "few files, and so few connections, may be open at a time"),
    "disk-low": (WARNING, "hardly any space is left for the database of the feedback"),
    "feedback-url": (ERROR, "the database of the feedback cannot be used: no such kind, or its driver is missing"),
    "feedback-unwritable": (ERROR, "the file of the feedback cannot be written"),
    "feedback-damaged": (ERROR, "the file of the feedback is damaged: no feedback is stored until it is restored"),
    "setting-invalid": (ERROR, "an environment variable has a value that the models refuse"),
    # device
    "gpu-missing": (ERROR, "the repository is for a GPU, and none is there"),
    "gpu-driver-missing": (ERROR, "the library of the GPU's driver cannot be loaded"),
    "cuda-provider-missing": (ERROR, "the repository is for a GPU, and this ONNX Runtime cannot use one"),
    "gpu-unused": (NOTE, "a GPU is here, and the repository is for the CPU"),
    "engines-for-checks": (
        ERROR,
        "the TensorRT engines were built without a GPU, for checks: Triton does not load them",
    ),
    "engines-misfit": (ERROR, "the TensorRT engines were built for another kind of GPU"),
    "engines-version": (ERROR, "the TensorRT engines were built with another version of TensorRT"),
    "engine-runtime-missing": (ERROR, "a package with which the decoder runs its TensorRT engines is missing"),
    "precision-unsupported": (ERROR, "the device has no kernels for the repository's precision"),
    "precision-slow": (WARNING, "the precision is for GPUs; the CPU computes it in float32, with conversions"),
    # configurations
    "repository-empty": (ERROR, "no model in the repository, or one with a name that a shell reads"),
    "model-missing": (ERROR, "a model that callers ask for is missing"),
    "config-unreadable": (ERROR, "config.pbtxt is no model configuration"),
    "config-name": (ERROR, "a model's name is not that of its folder"),
    "config-backend": (ERROR, "a model names a backend that this project has no models for"),
    "backend-implicit": (WARNING, "which backend runs a model is left to Triton"),
    "config-tensors": (ERROR, "a model lists no inputs or no outputs, a tensor twice, or one without type or shape"),
    "config-batch": (ERROR, "a model takes no batches, and every model here has the batch as its first axis"),
    "contract-broken": (ERROR, "a public input or output is missing, or has another type than callers expect"),
    "decoupled-wrong": (ERROR, "a model answers a request once where it must stream, or the other way round"),
    "instances-implicit": (WARNING, "the number or the kind of a model's instances is left to Triton"),
    "versions-implicit": (WARNING, "which versions of a model are served is left to Triton"),
    "queue-unbounded": (WARNING, "any number of requests may wait for a model"),
    "queue-delays": (WARNING, "requests that have waited too long are answered all the same"),
    "queue-stalls": (WARNING, "a queue policy where batches are not ragged: Triton lets requests wait for no reason"),
    "batching-off": (NOTE, "requests that wait for a graph do not share a batch"),
    "warmup-missing": (NOTE, "the first requests of a model are slower than the others"),
    "parameter-missing": (ERROR, "a model lacks a parameter that it reads"),
    "parameter-invalid": (ERROR, "a model's parameter has a value that it refuses"),
    "threads-exceed-cores": (WARNING, "a model takes more threads than there are cores"),
    "slots-few": (WARNING, "requests within the public limits need more slots than the decoder has"),
    # ensembles
    "step-model-missing": (ERROR, "a step names a model that is not there"),
    "step-version-missing": (ERROR, "a step names a version that is not there"),
    "step-input-unmapped": (ERROR, "a step does not get an input that its model needs"),
    "step-tensor-unknown": (ERROR, "a step maps a tensor that its model does not have"),
    "tensor-type-differs": (ERROR, "two models that hand a tensor over give it different types"),
    "tensor-shape-differs": (ERROR, "two models that hand a tensor over give it different shapes"),
    "tensor-unmade": (ERROR, "a tensor is read, and nothing makes it before"),
    "tensor-unused": (ERROR, "a tensor is made or given, and nothing reads it: Triton refuses such an ensemble"),
    "tensor-made-twice": (ERROR, "two steps make one tensor"),
    "optional-into-required": (ERROR, "a caller may leave out an input that a step cannot do without"),
    "batch-size-small": (ERROR, "a step takes smaller batches than its ensemble"),
    "batch-size-large": (NOTE, "a step takes larger batches than its ensemble ever sends"),
    # files
    "manifest-missing": (ERROR, "no manifest: the export was not finished"),
    "manifest-unreadable": (ERROR, "the manifest cannot be read"),
    "manifest-differs": (ERROR, "the manifest names another backend than the configurations"),
    "version-missing": (ERROR, "a model has no version folder"),
    "version-unknown": (WARNING, "the version of a model that Triton would serve was not exported"),
    "file-missing": (ERROR, "a file that was exported, or that a model needs, is missing"),
    "file-changed": (ERROR, "a file is not the one that was exported"),
    "file-outside": (ERROR, "the manifest names a file outside the repository"),
    "file-unknown": (NOTE, "a file that nothing needs"),
    # adapters
    "adapters-incomplete": (ERROR, "the newest set of adapters cannot be read, or has no default"),
    "adapter-misfits": (ERROR, "an adapter was made for other frozen models, sizes or another precision"),
    "adapters-setting": (ERROR, "the tokenizer lets requests name adapters, and the projector has one; or reversed"),
    # graphs
    "graph-unreadable": (ERROR, "ONNX Runtime cannot open a graph"),
    "graph-differs": (ERROR, "a graph's inputs or outputs are not those of its model's configuration"),
    "decoder-graphs-differ": (ERROR, "the two graphs of the decoder do not fit each other or the encoder"),
    # tokens
    "tokenizer-unreadable": (ERROR, "a tokenizer cannot be read"),
    "tokenizer-differs": (ERROR, "the decoder writes with another tokenizer than prompts are read with"),
    "token-unknown": (ERROR, "a special token is not in the vocabulary of its tokenizer"),
    # doctor itself
    "check-failed": (ERROR, "a check has failed itself: an error of this program"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: a key of :data:`KINDS`.
        where: the model, file, package or setting; empty where ``what`` says it.
        what: what is wrong.
        mend: how to mend it.
    """

    id: str
    where: str
    what: str
    mend: str = ""

    @property
    def severity(self) -> Severity:
        return KINDS[self.id][0]


Outcome = Finding | str
"""What a check yields: a finding, or a text about what is as it should be."""
