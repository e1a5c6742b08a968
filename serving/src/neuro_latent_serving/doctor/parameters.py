"""The ``parameters`` that the python models read, and threads against cores."""

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from neuro_latent_core.limits import MAX_SEQUENCES
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, PYTHON, Model
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.engine import EngineConfig
from neuro_latent_serving.engine.opening import DeviceName
from neuro_latent_serving.threads import available_cores

Reader = Callable[[str], object]


def whole(text: str) -> int:
    """A number from 0 on.

    Raises:
        ValueError: it is none.
    """
    if not text.isdecimal():
        raise ValueError("must be a number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """A number from 1 on.

    Raises:
        ValueError: it is none.
    """
    if whole(text) < 1:
        raise ValueError("must be a number from 1 on")
    return int(text)


def switch(text: str) -> bool:
    """``true`` or ``false``.

    Raises:
        ValueError: it is neither.
    """
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def device(text: str) -> str:
    """``cpu`` or ``gpu``.

    Raises:
        ValueError: it is neither.
    """
    if text not in get_args(DeviceName):
        raise ValueError("must be cpu or gpu")
    return text


def filled(text: str) -> str:
    """A text.

    Raises:
        ValueError: it is empty.
    """
    if not text:
        raise ValueError("must not be empty")
    return text


READERS: Mapping[str, Mapping[str, Reader]] = {
    "tokenizer": {
        "encoder_max_tokens": positive,
        "encoder_pad_id": whole,
        "source_max_tokens": positive,
        "source_pad_id": whole,
    },
    "encoder": {"threads": whole},
    "projector": {"threads": whole},
    "t5_encoder": {"threads": whole},
    "t5_decoder": {
        "slots": positive,
        "queue": positive,
        "threads": whole,
        "speculation": switch,
        "decoder_start_id": whole,
        "eos_id": whole,
        "model_version": filled,
    },
}
"""What each python model cannot start without."""

OPTIONAL_READERS: Mapping[str, Mapping[str, Reader]] = {
    "t5_decoder": {"guard": switch, "device": device, "cuda_graphs": switch},
    "tokenizer": {"several_adapters": switch},
}

THREADS = ("threads", "intra_op_thread_count")
"""Of a python model, and of Triton's onnxruntime backend; 0 is every core."""


def check(subject: Subject) -> Iterator[Outcome]:
    """All models."""
    for model in subject.models.values():
        if model.backend == PYTHON:
            yield from check_values(model)
        yield from check_threads(model)


def check_values(model: Model) -> Iterator[Finding]:
    """The model's code reads them and fails its start where it cannot."""
    where, given = f"{model.name}/{CONFIG}", model.parameters
    required = READERS.get(model.name, {})
    for name, read in {**required, **OPTIONAL_READERS.get(model.name, {})}.items():
        if name not in given:
            if name in required:
                mend = f'parameters {{ key: "{name}", value {{ string_value: "…" }} }}'
                yield Finding("parameter-missing", where, f"no parameter {name}", mend)
            continue
        try:
            read(given[name])
        except ValueError as error:
            yield Finding("parameter-invalid", where, f"{name} is {given[name]!r}: {error}", "Correct it.")
    slots = given.get("slots", "")
    if model.name == "t5_decoder" and slots.isdecimal() and 0 < int(slots) < MAX_SEQUENCES:
        what = f"{slots} slots; a request may ask for {MAX_SEQUENCES} texts or beams, which need a slot each"
        yield Finding("slots-few", where, what, f"Use {EngineConfig.slots}, as exported.")


def check_threads(model: Model) -> Iterator[Finding]:
    """Instances work at the same time, so their threads add up; those of different models take turns."""
    texts = [model.parameters[name] for name in THREADS if name in model.parameters]
    if not texts or not texts[0].isdecimal() or model.on_gpu:
        return
    cores = available_cores()
    each = int(texts[0]) or cores
    if each * model.instances > cores:
        what = f"{model.instances} instances of {each} threads, on {cores} cores"
        yield Finding("threads-exceed-cores", f"{model.name}/{CONFIG}", what, "Use fewer threads or one instance.")
