"""The whole system in PyTorch: frozen encoder, adapter, frozen T5. The oracle of every faster path.

Shape letters: ``B`` batch, ``E`` encoder width, ``P`` soft prompts, ``S`` source tokens, ``D`` generator width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        return self.generator.encode_soft(soft_BPD, ids_BS, mask_BS)

    @torch.no_grad()
    def generate_ids(self, texts: list[str], max_length: int = 200, **options: Any) -> list[list[int]]:
        """Token ids of enhanced prompts, as :meth:`~neuro_latent_trainer.backbones.Generator.write_ids` writes them."""
        tokens = self.generator.tokenize(texts, MAX_SOURCE_TOKENS, self.device)
        hidden_BQD, mask_BQ = self.encode(self.embed(texts), tokens["input_ids"], tokens["attention_mask"])
        return self.generator.write_ids(hidden_BQD, mask_BQ, max_length, **options)

    def generate(self, texts: list[str], max_length: int = 200, **options: Any) -> list[str]:
        """Enhanced prompts, one a text (times ``num_return_sequences``)."""
        rows = self.generate_ids(texts, max_length, **options)
        return self.generator.tokenizer.batch_decode(rows, skip_special_tokens=True)
