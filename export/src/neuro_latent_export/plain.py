"""A fine-tuned T5 that writes the better prompt by itself: no encoder beside it, no adapter, no soft prompts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from transformers import GenerationConfig

from neuro_latent_core.form import Form
from neuro_latent_export.errors import ExportError
from neuro_latent_trainer.backbones import Generator, load_generator, special_ends
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS, PromptOptimizer

_DECODING = {"do_sample", "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size"} | {
    "num_beams",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
}
"""What a ``generation_config.json`` may ask for that changes texts."""


@dataclass(frozen=True)
class PlainWriter:
    """What an export asks of a :class:`PromptOptimizer`, of a T5 alone.

    Attributes:
        generator: the T5, with the prefix that it was fine-tuned with.
    """

    generator: Generator

    encoder: ClassVar[None] = None
    adapter: ClassVar[None] = None
    form: ClassVar[Form] = "rewrite"
    sentences: ClassVar[dict[str, int]] = {}

    @classmethod
    def load(cls, generator: str, prefix: str, log: Callable[[str], None] = lambda text: None) -> "PlainWriter":
        """Load a T5 from a local folder in Hugging Face format, or by its Hub name.

        Args:
            generator: which.
            prefix: text before every prompt; "" for none.
            log: told what the folder's ``generation_config.json`` asks for, which a server does only if a request
                says so.

        Raises:
            BackboneError: it cannot be loaded, or is no T5.
            ExportError: the prefix has control characters, or leaves too little room for a prompt.
        """
        if not all(character.isprintable() or character in "\n\t" for character in prefix):
            raise ExportError("--prefix has a control character")
        writer = cls(replace(load_generator(generator), prefix=prefix))
        tokenizer, t5 = writer.generator.tokenizer, writer.generator_model
        # A prompt that is too long keeps its beginning and its end, half of the room each.
        most = (MAX_SOURCE_TOKENS - sum(map(len, special_ends(tokenizer)))) // 2
        tokens = len(tokenizer(prefix, add_special_tokens=False, verbose=False)["input_ids"])
        if tokens > most:
            raise ExportError(
                f"--prefix has {tokens} tokens; a T5 reads {MAX_SOURCE_TOKENS} of prefix and prompt together, and the "
                f"prefix may have {most} of them"
            )
        asked = {k: v for k, v in t5.generation_config.to_diff_dict().items() if k in _DECODING}
        if asked:
            found = ", ".join(f"{name}={value}" for name, value in sorted(asked.items()))
            log(f"its generation_config.json says {found}: a server decodes as its requests say, by default greedily")
        t5.generation_config = GenerationConfig(
            decoder_start_token_id=t5.config.decoder_start_token_id,
            eos_token_id=writer.generator.eos_id,
            pad_token_id=writer.generator.pad_id,
        )
        return writer

    @property
    def generator_model(self) -> Any:
        """Hugging Face's T5."""
        return self.generator.model

    @torch.no_grad()
    def generate_ids(self, texts: list[str], max_length: int = 200, **options: Any) -> list[list[int]]:
        """Token ids as Hugging Face ``generate`` writes them; arguments of :meth:`Generator.write_ids`."""
        tokens = self.generator.tokenize(texts, MAX_SOURCE_TOKENS)
        hidden_BSD = self.generator_model.encoder(**tokens).last_hidden_state
        return self.generator.write_ids(hidden_BSD, tokens["attention_mask"], max_length, **options)


System = PromptOptimizer | PlainWriter
"""What can be exported."""
