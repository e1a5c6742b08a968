"""The trained step: one ONNX graph an adapter, and rows of any of them in one batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from neuro_latent_core.protocol import ADAPTER, EVERY_ADAPTER
from neuro_latent_core.repository import ADAPTERS, DEFAULT, GRAPH
from neuro_latent_serving.checks import asked_adapter, unknown_adapter
from neuro_latent_serving.repository.records import read_adapters
from neuro_latent_serving.sessions import open_session
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.triton.graph import Array, BatchedModel
from neuro_latent_serving.triton.messages import model_parameters, required, whole_number

OUTPUTS = ("soft_prompts", "gate")
"""Of every adapter's graph."""


class ProjectorModel(BatchedModel):
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
        self._names = list(records)
        self._sessions[EVERY_ADAPTER] = self._sessions[DEFAULT]
        self._versions[EVERY_ADAPTER] = json.dumps(self._versions)

    def read(self, request: Any) -> list[Array]:
        """Embeddings [B, E], and the names of their adapters [B].

        Raises:
            InvalidInput: an input is missing, or there is no adapter of a name.
        """
        names = [asked_adapter(name) for name in required(request, ADAPTER)[:, 0]]
        if unknown := [name for name in names if name not in self._sessions]:
            raise unknown_adapter(unknown[0], self._names)
        return [required(request, "raw_embedding"), np.array(names, np.object_)]

    def run(self, inputs: list[Array]) -> dict[str, Array]:
        """Rows of one adapter go through its graph together."""
        embedding_BE, names_B = inputs
        outputs: list[Array] = []
        for name in np.unique(names_B):
            mine_B = names_B == name
            made = self._sessions[name].run(list(OUTPUTS), {"raw_embedding": embedding_BE[mine_B]})
            outputs = outputs or [np.empty((len(names_B), *part.shape[1:]), dtype=np.float32) for part in made]
            for output, part in zip(outputs, made, strict=True):
                output[mine_B] = part
        made_by = np.array([[self._versions[name].encode()] for name in names_B], np.object_)
        return dict(zip((*OUTPUTS, "made_by"), (*outputs, made_by), strict=True))
