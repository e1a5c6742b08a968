"""The whole system in PyTorch: frozen encoder, adapter, frozen T5. The oracle of every faster path.

Shape letters: ``B`` batch, ``E`` encoder width, ``P`` soft prompts, ``S`` source tokens, ``T`` target tokens,
``D`` generator width, ``V`` vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from neuro_latent_trainer import adapter_folder, steering
from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import Encoder, Generator, fingerprint, load_encoder, load_generator, pool, resolve

MAX_SOURCE_TOKENS = 512
"""The most tokens of a raw prompt that the generator reads (T5 was trained on 512)."""


class PromptOptimizer(nn.Module):
    """Raw prompt in, enhanced prompt out.

    Only :attr:`adapter` has trainable parameters; encoder and generator are frozen and always in evaluation mode.

    Attributes:
        starts_steered: whether a fresh adapter has the generator's own projector and standardizer.
    """

    def __init__(
        self, encoder: Encoder, generator: Generator, adapter: Adapter, *, starts_steered: bool = False
    ) -> None:
        super().__init__()
        self.starts_steered = starts_steered
        config = adapter.config
        if (config.encoder_width, config.generator_width) != (encoder.width, generator.width):
            raise ValueError(
                f"the adapter is for widths {config.encoder_width} and {config.generator_width}; "
                f"the encoder has {encoder.width}, the generator {generator.width}"
            )
        self.encoder, self.generator, self.adapter = encoder, generator, adapter
        # Registered so that .to() and .train() reach them; train() below keeps them in evaluation mode.
        self.encoder_model: Any = encoder.model
        self.generator_model: Any = generator.model

    def train(self, mode: bool = True) -> "PromptOptimizer":
        super().train(mode)
        self.encoder_model.eval()
        self.generator_model.eval()
        return self

    @classmethod
    def create(cls, encoder: Encoder, generator: Generator, config: AdapterConfig) -> "PromptOptimizer":
        """A fresh adapter: with the projector that the generator was pre-trained with, where it has one that fits;
        else started from the generator's own embeddings, and its standardizer is still to be fitted."""
        adapter = Adapter(config)
        if (tensors := steering.read(Path(resolve(generator.name)), config, encoder.model)) is not None:
            adapter.load_state_dict(tensors, strict=False)  # all but the black box
            return cls(encoder, generator, adapter.to(generator.embeddings.weight.device), starts_steered=True)
        table_VD = generator.embeddings.weight.detach()
        ids = generator.tokenizer(config.instruction, add_special_tokens=False)["input_ids"] or [generator.eos_id]
        slots = torch.tensor([ids[i % len(ids)] for i in range(config.soft_prompt_tokens)], device=table_VD.device)
        adapter.projector.start_from(table_VD, table_VD[slots])
        return cls(encoder, generator, adapter.to(table_VD.device))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, encoder: str | None = None, generator: str | None = None, device: str = "cpu"
    ) -> "PromptOptimizer":
        """Load an adapter folder with the backbones that it names (or the ones given here).

        Raises:
            AdapterError, BackboneError: the adapter or a backbone cannot be loaded, or a backbone that the adapter
                names has other weights than it was trained for.
            ValueError: they do not fit together.
        """
        saved = adapter_folder.read(Path(folder))
        model = cls(
            load_encoder(encoder or saved.encoder.name, device),
            load_generator(generator or saved.generator.name, device),
            Adapter(saved.config).to(device),
        )
        for option, given, named, backbone in (
            ("--encoder", encoder, saved.encoder, model.encoder_model),
            ("--generator", generator, saved.generator, model.generator_model),
        ):
            if given is None and named.sha256 and fingerprint(backbone) != named.sha256:
                raise adapter_folder.AdapterError(
                    f"the adapter in {folder} was trained for other weights of {named.name!r} than are there now; "
                    f"train it again, or give the weights it was trained for with {option}"
                )
        try:
            model.adapter.load_state_dict(saved.tensors)
        except RuntimeError as error:
            raise adapter_folder.AdapterError(
                f"the weights in {folder} do not fit its configuration: {error}"
            ) from None
        return model.eval()

    @property
    def device(self) -> torch.device:
        return self.generator.embeddings.weight.device

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Raw embeddings of texts, float32 [B, E]."""
        tokens = self.encoder.tokenize(texts, self.device)
        hidden_BLE = self.encoder_model(**tokens).last_hidden_state
        return pool(hidden_BLE, tokens["attention_mask"], self.adapter.config.pooling)

    def encode(self, embedding_BE: Tensor, ids_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Run T5's encoder over soft prompts and prompt: hidden states [B, P+S, D] and their mask [B, P+S]."""
        soft_BPD = self.adapter(embedding_BE)
        return self.encode_soft(soft_BPD, ids_BS, mask_BS)

    def encode_soft(self, soft_BPD: Tensor, ids_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`encode`, from given soft prompts."""
        inputs_BQD = torch.cat([soft_BPD, self.generator.embeddings(ids_BS)], dim=1)
        mask_BQ = torch.cat([mask_BS.new_ones(soft_BPD.shape[:2]), mask_BS], dim=1)
        hidden_BQD = self.generator_model.encoder(inputs_embeds=inputs_BQD, attention_mask=mask_BQ).last_hidden_state
        return hidden_BQD, mask_BQ

    def logits(self, hidden_BQD: Tensor, mask_BQ: Tensor, labels_BT: Tensor) -> Tensor:
        """Teacher-forced logits [B, T, V] of ``labels_BT`` (IGNORE where padded)."""
        return self.generator_model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BQD),
            attention_mask=mask_BQ,
            decoder_input_ids=self.generator_model._shift_right(labels_BT),
            use_cache=False,
        ).logits

    @torch.no_grad()
    def generate_ids(self, texts: list[str], max_length: int = 200, **options: Any) -> list[list[int]]:
        """Token ids written by Hugging Face ``generate``, without start, padding and ``</s>``.

        ``max_length`` is the most tokens written; ``options`` go to ``generate`` (greedy by default).
        """
        tokens = self.generator.tokenize(texts, MAX_SOURCE_TOKENS, self.device)
        hidden_BQD, mask_BQ = self.encode(self.embed(texts), tokens["input_ids"], tokens["attention_mask"])
        return self.write_ids(hidden_BQD, mask_BQ, max_length, **options)

    @torch.no_grad()
    def write_ids(self, hidden_BQD: Tensor, mask_BQ: Tensor, max_length: int, **options: Any) -> list[list[int]]:
        """As :meth:`generate_ids`, from given encoder states."""
        out = self.generator_model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden_BQD),
            attention_mask=mask_BQ,
            max_new_tokens=max_length,
            # Given, because generate() sizes its own cache by the encoder's layers, which T5s may have fewer of.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            **{"do_sample": False, **options},
        )
        rows = []
        for row in out[:, 1:].tolist():
            end = row.index(self.generator.eos_id) if self.generator.eos_id in row else len(row)
            rows.append(row[:end])
        return rows

    def generate(self, texts: list[str], max_length: int = 200, **options: Any) -> list[str]:
        """Enhanced prompts, one a text (times ``num_return_sequences``)."""
        rows = self.generate_ids(texts, max_length, **options)
        return self.generator.tokenizer.batch_decode(rows, skip_special_tokens=True)
