"""Steps of the ensembles that run in batches; one is a single ONNX graph: encoder, T5 encoder."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.limits import BUCKETS
from neuro_latent_serving.byte_cache import ByteCache, digest
from neuro_latent_serving.sessions import open_session
from neuro_latent_serving.settings import cache_bytes
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.triton.messages import error_response, model_parameters, required, whole_number

Array = npt.NDArray[Any]

ARRAY_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

WARM_UP_TOKENS = 128
"""The longest prompt of the warm-up: a longer one's own time makes up for the allocations."""


def checked_length(name: str, array: Array) -> Array:
    """An input whose rows are no longer than what the tokenizer makes: attention's memory grows with their square.

    Raises:
        InvalidInput: it is longer.
    """
    if array.ndim == 2 and array.dtype == np.int64 and array.shape[1] > BUCKETS[-1]:
        raise InvalidInput(f"{name} has {array.shape[1]} tokens; the limit is {BUCKETS[-1]}")
    return array


class BatchedModel(ABC):
    """Runs requests of equal shapes together."""

    @abstractmethod
    def read(self, request: Any) -> list[Array]:
        """The inputs of a request, the rows on their first axes."""

    @abstractmethod
    def run(self, inputs: list[Array]) -> dict[str, Array]:
        """The outputs by name, the rows on their first axes too."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton batches whatever waits; requests of equal shapes go through :meth:`run` together.

        Not padded to one length: sums over padding end in other last bits, and an answer may not depend on what else
        is running. (Triton's own grouping by shape is not used: with ``allow_ragged_batch`` off, its batcher lets
        requests wait for up to half a second when shapes alternate.)
        """
        answers: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[tuple[int, list[Array]]]] = {}
        for number, request in enumerate(requests):
            try:
                inputs = self.read(request)
            except Exception as error:
                answers[number] = error_response(error)
                continue
            groups.setdefault(tuple(array.shape[1:] for array in inputs), []).append((number, inputs))
        for group in groups.values():
            for (number, _), answer in zip(group, self._answer([inputs for _, inputs in group]), strict=True):
                answers[number] = answer
        return answers

    def _answer(self, requests: list[list[Array]]) -> list[Any]:
        """A response to each of some requests with equal shapes."""
        try:
            outputs = self.run([np.concatenate(part) for part in zip(*requests, strict=True)])
        except Exception as error:
            if len(requests) > 1:  # one bad request must not take the others of its batch with it
                return [self._answer([inputs])[0] for inputs in requests]
            return [error_response(error)]
        ends = np.cumsum([len(inputs[0]) for inputs in requests])[:-1]
        return [
            pb_utils.InferenceResponse(
                output_tensors=[
                    pb_utils.Tensor(name, np.ascontiguousarray(part)) for name, part in zip(outputs, parts, strict=True)
                ]
            )
            for parts in zip(*(np.split(output, ends) for output in outputs.values()), strict=True)
        ]


class GraphModel(BatchedModel):
    """Runs ``model.onnx``; rows that it has seen lately are answered as they were then."""

    _cache_bytes = 0

    def initialize(self, args: dict[str, str]) -> None:
        self._cache_bytes = cache_bytes()
        self._cache: ByteCache[list[Array]] = ByteCache(self._cache_bytes)
        self._open(args, whole_number(model_parameters(args), "threads"))
        self._warm_up()

    def _open(self, args: dict[str, str], threads: int) -> None:
        """Open the graph of the model that Triton describes by ``args``; 0 threads is every core."""
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = open_session(path, threads or default_threads())
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]

    def _warm_up(self) -> None:
        """Run each length that the tokenizer makes, so that the first requests do not pay for the first allocations."""
        for length in (b for b in BUCKETS if b <= WARM_UP_TOKENS):
            feeds = {
                i.name: np.ones([1, *(n if isinstance(n, int) else length for n in i.shape[1:])], ARRAY_TYPES[i.type])
                for i in self._session.get_inputs()
            }
            self._session.run(None, feeds)

    def read(self, request: Any) -> list[Array]:
        """The graph's inputs."""
        return [checked_length(name, required(request, name)) for name in self._inputs]

    def run(self, inputs: list[Array]) -> dict[str, Array]:
        """The graph's outputs."""
        if not self._cache_bytes:
            return dict(zip(self._outputs, self._run(inputs), strict=True))
        keys = [digest(*row) for row in zip(*inputs, strict=True)]
        found = [self._cache.get(key) for key in keys]
        if new := [row for row, known in enumerate(found) if known is None]:
            for row, made in zip(new, zip(*self._run([part[new] for part in inputs]), strict=True), strict=True):
                kept = found[row] = [part.copy() for part in made]
                self._cache.put(keys[row], kept, sum(part.nbytes for part in kept))
        return {name: np.stack([row[i] for row in found if row]) for i, name in enumerate(self._outputs)}

    def _run(self, inputs: list[Array]) -> list[Array]:
        outputs: list[Array] = self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
        return outputs
