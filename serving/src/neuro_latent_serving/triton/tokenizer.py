"""The first step of both ensembles: checks the request, makes token ids of the prompt."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.options import OPTIONS, RequestOptions
from neuro_latent_core.protocol import ADAPTER, EVERY_ADAPTER, RAW_PROMPT
from neuro_latent_core.repository import DEFAULT
from neuro_latent_serving.checks import asked_adapter, check_prompt, unknown_adapter
from neuro_latent_serving.tokenization import TextTokenizer
from neuro_latent_serving.triton.messages import (
    bytes_tensor,
    error_response,
    given_rows,
    model_parameters,
    refuse_unknown_parameters,
    required,
    switch,
    tensor,
    whole_number,
)


class TokenizerModel:
    """``raw_prompt`` -> ids and masks for the encoder (unless a T5 is served alone) and for T5, whether either was cut,
    the adapter's name, the options that were given (JSON), and when the request came, on the machine's monotonic clock:
    deadlines count from here.

    The name goes on in every request: where the inputs of waiting requests differ, Triton does not batch them.
    """

    def initialize(self, args: dict[str, str]) -> None:
        parameters = model_parameters(args)
        self._several_adapters = switch(parameters, "several_adapters", "true")
        folder = Path(args["model_repository"]) / args["model_version"]
        self._encoder = None
        if "encoder_max_tokens" in parameters:
            self._encoder = TextTokenizer(
                folder / "encoder_tokenizer.json",
                whole_number(parameters, "encoder_max_tokens"),
                whole_number(parameters, "encoder_pad_id"),
            )
        self._generator = TextTokenizer(
            folder / "generator_tokenizer.json",
            whole_number(parameters, "source_max_tokens"),
            whole_number(parameters, "source_pad_id"),
            parameters.get("prefix", ""),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        arrived_ns = time.monotonic_ns()
        return [self._answer(request, arrived_ns) for request in requests]

    def _answer(self, request: Any, arrived_ns: int) -> Any:
        try:
            refuse_unknown_parameters(request)
            raw = required(request, RAW_PROMPT)
            texts = [check_prompt(value) for value in raw[:, 0]]
            given = given_rows(request, OPTIONS, len(texts))
            if len({RequestOptions.from_values(options).num_return_sequences for options in given}) > 1:
                raise InvalidInput("num_return_sequences must be the same for all rows of a request")
            adapters = [
                self._adapter(row.get(ADAPTER) or DEFAULT) for row in given_rows(request, [ADAPTER], len(texts))
            ]
            encoder, generator = self._encoder.encode(texts) if self._encoder else None, self._generator.encode(texts)
        except Exception as error:
            return error_response(error)
        truncated_B, for_encoder = generator.truncated_B, []
        if encoder is not None:
            truncated_B = truncated_B | encoder.truncated_B
            for_encoder = [
                pb_utils.Tensor("encoder_ids", encoder.ids_BL),
                pb_utils.Tensor("encoder_mask", encoder.mask_BL),
            ]
        return pb_utils.InferenceResponse(
            output_tensors=[
                *for_encoder,
                pb_utils.Tensor("t5_ids", generator.ids_BL),
                pb_utils.Tensor("t5_mask", generator.mask_BL),
                pb_utils.Tensor("truncated", np.array(truncated_B)[:, None]),
                bytes_tensor("adapter_name", [[name] for name in adapters]),
                bytes_tensor("options", [[json.dumps(options)] for options in given]),
                tensor("arrived_ns", [[arrived_ns]] * len(texts), np.int64),
            ]
        )

    def _adapter(self, raw: str | bytes) -> str:
        """The name of an adapter; where the projector is one graph it is never told which, so it is refused here."""
        name = asked_adapter(raw)
        if name not in (DEFAULT, EVERY_ADAPTER) and self._encoder is None:
            raise InvalidInput(
                f"{ADAPTER} must be left out: the server has a T5 that writes by itself, and no adapters"
            )
        if name not in (DEFAULT, EVERY_ADAPTER) and not self._several_adapters:
            raise unknown_adapter(name, [DEFAULT])
        return name
