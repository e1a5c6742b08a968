"""The two decoder graphs: prefill (once a request) and step (once a token).

Shape letters: ``B`` rows, ``Q`` encoder tokens, ``T`` cached target tokens, ``D`` model width, ``N`` heads,
``H`` head width, ``V`` vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from neuro_latent_serving.sessions import open_session

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StepResult:
    """What one step gives for every row; ``logits_BV`` only when asked for."""

    next_token_B: Ids
    next_logprob_B: Floats
    logits_BV: Floats | None
    self_cache: list[ort.OrtValue]


class Decoder:
    """Runs ``prefill.onnx`` and ``step.onnx`` of a folder; sizes are read from the graphs."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._prefill = open_session(folder / "prefill.onnx", threads)
        self._step = open_session(folder / "step.onnx", threads)
        inputs = {i.name: i.shape for i in self._step.get_inputs()}
        self._self_names = [n for n in inputs if n.startswith("past_key_values.") and ".decoder." in n]
        self._cross_names = [n for n in inputs if n.startswith("past_key_values.") and ".encoder." in n]
        self._present_names = [n.replace("past_key_values", "present") for n in self._self_names]
        _, self.heads, _, self.head_width = inputs[self._self_names[0]]
        self.width: int = self._prefill.get_inputs()[0].shape[2]

    @property
    def cache_tensors(self) -> int:
        """How many self-attention tensors a cache has: key and value of every layer."""
        return len(self._self_names)

    def prefill(self, hidden_QD: Floats) -> list[Floats]:
        """Cross-attention keys and values of one request: for each layer two [1, N, Q, H]."""
        outputs: list[Floats] = self._prefill.run(None, {"encoder_hidden_states": hidden_QD[None]})
        return outputs

    def step(
        self,
        tokens_B: Ids,
        self_mask_BT: Ids,
        encoder_mask_BQ: Ids,
        self_cache: list[ort.OrtValue],
        cross_cache: list[ort.OrtValue],
        with_logits: bool,
    ) -> StepResult:
        """Decode one token a row; ``self_mask_BT`` counts the new token's column."""
        value = ort.OrtValue.ortvalue_from_numpy
        feeds = {
            "decoder_input_ids": value(tokens_B[:, None]),
            "self_attention_mask": value(self_mask_BT),
            "encoder_attention_mask": value(encoder_mask_BQ),
            **dict(zip(self._self_names, self_cache, strict=True)),
            **dict(zip(self._cross_names, cross_cache, strict=True)),
        }
        names = ["next_token", "next_logprob", *self._present_names, *(["logits"] if with_logits else [])]
        outputs = self._step.run_with_ort_values(names, feeds)
        return StepResult(
            next_token_B=outputs[0].numpy(),
            next_logprob_B=outputs[1].numpy(),
            logits_BV=outputs[-1].numpy() if with_logits else None,
            self_cache=outputs[2 : 2 + len(self._present_names)],
        )
