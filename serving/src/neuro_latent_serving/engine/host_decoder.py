"""The two decoder graphs on the CPU: prefill (once a request) and step (some tokens of every row at once).

Shape letters: ``B`` rows, ``W`` tokens a row, ``Q`` encoder tokens, ``D`` model width, ``N`` heads, ``H`` head width,
``V`` vocabulary, ``C`` candidates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuro_latent_core.limits import CANDIDATES, MAX_ENCODER_TOKENS, MAX_STEP_TOKENS
from neuro_latent_serving.engine.cache import SlotCache
from neuro_latent_serving.engine.contract import DecoderSizes, Floats, Ids, StepResult, present
from neuro_latent_serving.sessions import graph_shapes, open_session

CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""By the type of the step graph's caches."""


class HostDecoder:
    """Runs ``prefill.onnx`` and ``step.onnx`` of a folder over a cache that is written in place.

    All sizes are read from the graphs. Every tensor of a step lies in memory that is bound once, so that a step is one
    call without copies.
    """

    most_encoder_tokens = MAX_ENCODER_TOKENS

    def __init__(self, folder: Path, threads: int, slots: int) -> None:
        self._prefill = open_session(folder / "prefill.onnx", threads)
        self._step = open_session(folder / "step.onnx", threads, spin=threads > 1)
        sizes = DecoderSizes.of(graph_shapes(self._prefill), graph_shapes(self._step))
        self.width, self.vocabulary = sizes.width, sizes.vocabulary
        types = {tensor.name: tensor.type for tensor in self._step.get_inputs()}
        self.cache = SlotCache(
            slots,
            sizes.heads,
            sizes.head_width,
            sizes.self_names,
            sizes.cross_names,
            CACHE_TYPES[types[sizes.self_names[0]]],
        )
        self._candidates = min(CANDIDATES, self.vocabulary)

        self._tokens = np.zeros(slots * MAX_STEP_TOKENS, dtype=np.int64)
        self._candidates_wanted = np.zeros(1, dtype=np.int64)
        self._next_token = np.zeros(slots * MAX_STEP_TOKENS, dtype=np.int64)
        self._next_logprob = np.zeros(slots * MAX_STEP_TOKENS, dtype=np.float32)
        self._candidate_tokens = np.zeros(slots * MAX_STEP_TOKENS * self._candidates, dtype=np.int64)
        self._candidate_logprobs = np.zeros(slots * MAX_STEP_TOKENS * self._candidates, dtype=np.float32)
        self._logprobs: Floats | None = None  # megabytes, and few requests ask for it
        self._slots = slots
        self._bindings: dict[tuple[int, int, bool, bool], _HostBinding] = {}
        self._bound_layout = self.cache.layout

    def join(self, hidden_QD: Floats, mask_Q: Ids, copies: int) -> range:
        """Prefill one prompt and add rows for it: see :class:`~neuro_latent_serving.engine.contract.Decoder`."""
        cross = self._prefill.run(None, {"encoder_hidden_states": hidden_QD[None]})
        return self.cache.join(cross, mask_Q, copies)

    def step(self, tokens_BW: Ids, with_candidates: bool = False, with_logprobs: bool = False) -> StepResult:
        """Feed tokens to the rows: see :class:`~neuro_latent_serving.engine.contract.Decoder`."""
        rows, width = tokens_BW.shape
        self.cache.fit(width)
        if self._bound_layout != self.cache.layout:
            self._bindings.clear()
            self._bound_layout = self.cache.layout
        key = (rows, width, with_candidates, with_logprobs)
        binding = self._bindings.get(key) or self._bind(*key)
        self._bindings[key] = binding
        binding.tokens_BW[:] = tokens_BW
        self._candidates_wanted[0] = self._candidates if with_candidates else 0
        self._step.run_with_iobinding(binding.io)
        return binding.result

    def _bind(self, rows: int, width: int, with_candidates: bool, with_logprobs: bool) -> "_HostBinding":
        io = self._step.io_binding()

        def bind_input(name: str, array: npt.NDArray[np.generic]) -> None:
            io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

        def bind_output(name: str, array: npt.NDArray[np.generic]) -> None:
            io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

        count = self._candidates if with_candidates else 0
        tokens_BW = _view(self._tokens, rows, width)
        result = StepResult(
            next_token_BW=_view(self._next_token, rows, width),
            next_logprob_BW=_view(self._next_logprob, rows, width),
            candidate_tokens_BWC=_view(self._candidate_tokens, rows, width, count),
            candidate_logprobs_BWC=_view(self._candidate_logprobs, rows, width, count),
            logprobs_BWV=_view(self._all_logprobs(), rows, width, self.vocabulary) if with_logprobs else None,
        )
        bind_input("decoder_input_ids", tokens_BW)
        bind_input("cache_lengths", self.cache.lengths_B)
        bind_input("encoder_attention_mask", self.cache.encoder_mask_BQ)
        bind_input("candidates", self._candidates_wanted)
        for name, tensor in self.cache.tensors():
            bind_input(name, tensor)
            if ".decoder." in name:  # the same memory: the graph writes the new columns in place
                bind_output(present(name), tensor)
        bind_output("next_token", result.next_token_BW)
        bind_output("next_logprob", result.next_logprob_BW)
        if with_candidates:
            bind_output("candidate_tokens", result.candidate_tokens_BWC)
            bind_output("candidate_logprobs", result.candidate_logprobs_BWC)
        if result.logprobs_BWV is not None:
            bind_output("logprobs", result.logprobs_BWV)
        return _HostBinding(io, tokens_BW, result)

    def _all_logprobs(self) -> Floats:
        if self._logprobs is None:
            self._logprobs = np.zeros(self._slots * MAX_STEP_TOKENS * self.vocabulary, dtype=np.float32)
        return self._logprobs


@dataclass(frozen=True)
class _HostBinding:
    """Memory bound for one number of rows and tokens."""

    io: Any
    tokens_BW: Ids
    result: StepResult


def _view(flat: npt.NDArray[Any], *shape: int) -> npt.NDArray[Any]:
    return flat[: int(np.prod(shape))].reshape(shape)
