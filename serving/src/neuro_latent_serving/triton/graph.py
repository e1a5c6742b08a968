"""A step of the ensembles that is one ONNX graph: encoder, projector, T5 encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_serving.sessions import open_session
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.tokenization import BUCKETS
from neuro_latent_serving.triton.messages import error_response, model_parameters, required

ARRAY_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

WARM_UP_BUCKETS = 4
"""The shortest ones: a longer prompt's own time makes up for the allocations."""


class GraphModel:
    """Runs ``model.onnx``; requests that Triton batched (equal shapes) go through the graph together."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = model_parameters(args)
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = open_session(path, int(parameters["threads"]) or default_threads())
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._warm_up()

    def _warm_up(self) -> None:
        """Run each length that the tokenizer makes, so that the first requests do not pay for the first allocations."""
        for length in BUCKETS[:WARM_UP_BUCKETS]:
            feeds = {
                i.name: np.ones([1, *self._sizes(i.shape[1:], length)], dtype=ARRAY_TYPES[i.type])
                for i in self._session.get_inputs()
            }
            self._session.run(None, feeds)

    @staticmethod
    def _sizes(axes: list[int | str], length: int) -> list[int]:
        return [size if isinstance(size, int) else length for size in axes]

    def execute(self, requests: list[Any]) -> list[Any]:
        try:
            rows = [[required(r, name) for name in self._inputs] for r in requests]
            feeds = {
                name: np.concatenate(part) for name, part in zip(self._inputs, zip(*rows, strict=True), strict=True)
            }
            (output,) = self._session.run(None, feeds)
        except Exception as error:
            if len(requests) > 1:  # one bad request must not take the others of its batch with it
                return [self.execute([request])[0] for request in requests]
            return [error_response(error)]
        ends = np.cumsum([len(row[0]) for row in rows])[:-1]
        return [
            pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(self._output, np.ascontiguousarray(part))])
            for part in np.split(output, ends)
        ]
