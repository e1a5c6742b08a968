"""The trained step: one ONNX graph an adapter, and rows of any of them in one batch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from neuro_latent_core.protocol import ADAPTER
from neuro_latent_core.repository import ADAPTERS, GRAPH
from neuro_latent_serving.checks import check_adapter, unknown_adapter
from neuro_latent_serving.repository.records import read_adapters
from neuro_latent_serving.sessions import open_session
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.triton.messages import bytes_tensor, error_response, model_parameters, required, whole_number

Floats = npt.NDArray[np.float32]

OUTPUTS = ("soft_prompts", "gate")
"""Of every adapter's graph."""


class ProjectorModel:
    """``raw_embedding`` [B, E], ``adapter`` [B, 1] -> ``soft_prompts`` [B, P, D], ``gate`` [B, 4], ``made_by`` [B, 1].

    A version of this model is a set of adapters that never changes; adapters come and go with new versions, which
    Triton loads beside the old one. So a request is made by one version of one adapter, and ``made_by`` says which.
    """

    def initialize(self, args: dict[str, str]) -> None:
        version = Path(args["model_repository"]) / args["model_version"]
        threads = whole_number(model_parameters(args), "threads") or default_threads()
        records = read_adapters(version)
        self._versions = {name: record.model_version for name, record in records.items()}
        self._sessions = {name: open_session(version / ADAPTERS / name / GRAPH, threads) for name in records}
        for session in self._sessions.values():  # so that the first requests do not pay for the first allocations
            (embedding,) = session.get_inputs()
            session.run(None, {embedding.name: np.ones([1, *embedding.shape[1:]], dtype=np.float32)})

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton batches whatever waits; rows of one adapter go through its graph together."""
        answers: list[Any] = [None] * len(requests)
        taken: list[tuple[int, Floats, list[str]]] = []
        for number, request in enumerate(requests):
            try:
                embedding_BE = required(request, "raw_embedding")
                taken.append((number, embedding_BE, [self._known(name) for name in required(request, ADAPTER)[:, 0]]))
            except Exception as error:
                answers[number] = error_response(error)
        for number, answer in zip((n for n, _, _ in taken), self._run([row[1:] for row in taken]), strict=True):
            answers[number] = answer
        return answers

    def _known(self, raw: bytes) -> str:
        """The name of an adapter; an InvalidInput where there is none of it."""
        name = check_adapter(raw)
        if name in self._sessions:
            return name
        raise unknown_adapter(name, list(self._sessions))

    def _run(self, rows: list[tuple[Floats, list[str]]]) -> list[Any]:
        """A response to each of some requests: embeddings [B, E] and the adapter of each of their rows."""
        if not rows:
            return []
        try:
            embedding_RE = np.concatenate([embedding_BE for embedding_BE, _ in rows])
            names = np.array([name for _, names in rows for name in names])
            outputs: list[Floats] = []
            for name in np.unique(names):
                mine_R = names == name
                made = self._sessions[name].run(list(OUTPUTS), {"raw_embedding": embedding_RE[mine_R]})
                outputs = outputs or [np.empty((len(names), *part.shape[1:]), dtype=np.float32) for part in made]
                for output, part in zip(outputs, made, strict=True):
                    output[mine_R] = part
        except Exception as error:
            if len(rows) > 1:  # one bad request must not take the others of its batch with it
                return [self._run([row])[0] for row in rows]
            return [error_response(error)]
        ends = np.cumsum([len(names) for _, names in rows])[:-1]
        split = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [
            pb_utils.InferenceResponse(
                output_tensors=[
                    *(pb_utils.Tensor(*named) for named in zip(OUTPUTS, map(np.ascontiguousarray, parts), strict=True)),
                    bytes_tensor("made_by", [[self._versions[name]] for name in names]),
                ]
            )
            for parts, (_, names) in zip(split, rows, strict=True)
        ]
