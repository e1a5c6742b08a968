"""Prefill and step over a cache in a device's memory.

A step takes numbers of rows and tokens that are powers of two, so that there are few shapes to bind (and to capture).
What is too many is harmless: rows that nobody has, and tokens that do not count.

Shape letters: ``B`` rows, ``W`` tokens a row, ``Q`` encoder tokens, ``D`` model width, ``C`` candidates,
``V`` vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuro_latent_core.limits import CANDIDATES
from neuro_latent_serving.engine.contract import Floats, Ids, StepResult, present
from neuro_latent_serving.engine.device.device_cache import DeviceCache, power_of_two
from neuro_latent_serving.engine.device.runtime import Array, DeviceArray, PackedTensors, Runtime, View
from neuro_latent_serving.errors import DeviceMissing


class DeviceDecoder:
    """A :class:`~neuro_latent_serving.engine.contract.Decoder` over any :class:`Runtime`.

    Raises:
        DeviceMissing: the runtime does not take so many rows.
    """

    def __init__(self, runtime: Runtime, slots: int) -> None:
        if runtime.most_rows is not None and slots > runtime.most_rows:
            raise DeviceMissing(
                f"slots is {slots}, and these engines take {runtime.most_rows} rows: set the parameter slots of "
                "t5_decoder to at most that"
            )
        self._runtime, self._slots = runtime, slots
        self.width, self.vocabulary = runtime.sizes.width, runtime.sizes.vocabulary
        self.most_encoder_tokens = runtime.most_encoder_tokens
        self.cache = DeviceCache(runtime, slots)
        self._candidates = min(CANDIDATES, self.vocabulary)
        self._arrays: dict[tuple[str, tuple[int, ...]], DeviceArray] = {}
        self._packed: dict[tuple[int, int], tuple[PackedTensors, PackedTensors]] = {}
        """What a step of so many rows and tokens takes from the host each time, and what it gives back."""
        self._masks: dict[tuple[int, ...], int] = {}
        """By shape of the mask: the state of the rows that it was written for."""
        self._prefills: dict[tuple[int, ...], Callable[[], None]] = {}
        self._bindings: dict[tuple[int, ...], _DeviceBinding] = {}

    def join(self, hidden_QD: Floats, mask_Q: Ids, copies: int) -> range:
        """Prefill one prompt into the rows that it gets: its keys and values are written where they stay."""
        wide = len(mask_Q)
        new, cross = self.cache.make_room(wide, copies)
        columns = cross[0][1].shape[2]
        padded = np.zeros((copies, columns, self.width), dtype=np.float32)
        padded[:, :wide] = hidden_QD
        hidden = self._array("encoder_hidden_states", padded.shape, np.float32)
        hidden.write(padded)
        key = (new.start, copies, columns)
        if key not in self._prefills:
            outputs = {present(name): view for name, view in cross}
            self._prefills[key] = self._runtime.bind("prefill", {"encoder_hidden_states": hidden.view, **outputs}, True)
        self._prefills[key]()
        self.cache.take(new, mask_Q)
        return new

    def step(self, tokens_BW: Ids, with_candidates: bool = False, with_logprobs: bool = False) -> StepResult:
        """Feed tokens to the rows: see :class:`~neuro_latent_serving.engine.contract.Decoder`."""
        rows, width = tokens_BW.shape
        shape = min(power_of_two(rows), self._slots), power_of_two(width)
        self.cache.fit(shape[1])
        count = self._candidates if with_candidates else self._runtime.fewest_candidates
        key = (*shape, count, *self.cache.columns)
        binding = self._bindings.get(key) or self._bind(*shape, count)
        self._bindings[key] = binding
        binding.write(tokens_BW, self.cache.lengths_B)
        self._write_mask(binding.mask)
        binding.run()
        next_token, next_logprob = (array[:rows, :width] for array in binding.best.read())

        def read(name: str) -> Array:
            return binding.outputs[name].read()[:rows, :width]

        none_BWC = np.zeros((rows, width, 0), np.float32)
        return StepResult(
            next_token_BW=next_token,
            next_logprob_BW=next_logprob,
            candidate_tokens_BWC=read("candidate_tokens") if with_candidates else none_BWC.astype(np.int64),
            candidate_logprobs_BWC=read("candidate_logprobs") if with_candidates else none_BWC,
            logprobs_BWV=read("logprobs") if with_logprobs else None,
        )

    def _bind(self, rows: int, width: int, count: int) -> "_DeviceBinding":
        ids, floats = np.int64, np.float32
        if (rows, width) not in self._packed:
            fed = {"decoder_input_ids": ((rows, width), ids), "cache_lengths": ((rows,), ids)}
            found = {"next_token": ((rows, width), ids), "next_logprob": ((rows, width), floats)}
            self._packed[rows, width] = PackedTensors(self._runtime, fed), PackedTensors(self._runtime, found)
        inputs, best = self._packed[rows, width]
        mask = self._array("encoder_attention_mask", self.cache.mask(rows).shape, ids)
        outputs = {"logprobs": self._array("logprobs", (rows, width, self.vocabulary), floats)}
        if count:  # nothing can be bound to no memory
            outputs |= {
                "candidate_tokens": self._array("candidate_tokens", (rows, width, count), ids),
                "candidate_logprobs": self._array("candidate_logprobs", (rows, width, count), floats),
            }
        tensors: dict[str, View | Ids] = {
            **inputs.views,
            **best.views,
            "encoder_attention_mask": mask.view,
            "candidates": np.array([count]),
            **{name: array.view for name, array in outputs.items()},
            **dict(self.cache.tensors(rows)),
        }
        if self._runtime.sizes.columns is not None:
            tensors["columns"] = np.array([self.cache.seen_columns])
        captured = count == self._runtime.fewest_candidates  # ONNX Runtime's TopK copies from the host while it works
        return _DeviceBinding(self._runtime.bind("step", tensors, captured), inputs, best, mask, outputs)

    def _write_mask(self, mask: DeviceArray) -> None:
        shape = mask.view.shape
        if self._masks.get(shape) != self.cache.joins_and_leaves:
            mask.write(self.cache.mask(shape[0]))
            self._masks[shape] = self.cache.joins_and_leaves

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Memory for an input or output of a shape, the same each time: captured graphs point to it."""
        if (name, shape) not in self._arrays:
            self._arrays[name, shape] = self._runtime.zeros(shape, dtype)
        return self._arrays[name, shape]


@dataclass(frozen=True)
class _DeviceBinding:
    """A step of one shape, with the memory that it reads and writes."""

    run: Callable[[], None]
    inputs: PackedTensors
    best: PackedTensors
    mask: DeviceArray
    outputs: dict[str, DeviceArray]

    def write(self, tokens_BW: Ids, lengths_B: Ids) -> None:
        """Tokens and lengths, with zeros behind them."""
        tokens, lengths = self.inputs.host
        tokens[...], lengths[...] = 0, 0
        tokens[: tokens_BW.shape[0], : tokens_BW.shape[1]], lengths[: len(lengths_B)] = tokens_BW, lengths_B
        self.inputs.write()
