"""The whole system in PyTorch: frozen encoder, adapter, frozen T5. The oracle of every faster path.

Shape letters: ``B`` batch, ``E`` encoder width, ``P`` soft prompts, ``S`` source tokens, ``D`` generator width.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn

from neuro_latent_core.form import Form, join
from neuro_latent_trainer import adapter_folder, steering
from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.adapter_folder import BackboneName, SavedAdapter
from neuro_latent_trainer.backbones import (
    Encoder,
    Generator,
    load_encoder,
    load_generator,
    pool,
    recorded_name,
    resolve,
)

MAX_SOURCE_TOKENS = 512
"""The most tokens of a raw prompt that the generator reads (T5 was trained on 512)."""


class PromptOptimizer(nn.Module):
    """Raw prompt in, enhanced prompt out.

    Only :attr:`adapter` has trainable parameters; encoder and generator are frozen and always in evaluation mode.

    Attributes:
        starts_steered: whether a fresh adapter has the weights that the generator was pre-trained with.
        trained: how the adapter was trained, JSON types only; empty where it was not.
        card: its model card in Markdown; empty where it has none.
    """

    def __init__(
        self, encoder: Encoder, generator: Generator, adapter: Adapter, *, starts_steered: bool = False
    ) -> None:
        super().__init__()
        self.starts_steered = starts_steered
        self.trained: dict[str, Any] = {}
        self.card = ""
        self.sentences: dict[str, int] = {}
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
    def create(
        cls, encoder: Encoder, generator: Generator, config: AdapterConfig, *, steered: bool = True
    ) -> "PromptOptimizer":
        """A fresh adapter: if ``steered``, the one that the generator was pre-trained with, where it has one that fits;
        else started from the generator's own embeddings, and its standardizer is still to be fitted."""
        adapter = Adapter(config)
        table_VD = generator.embeddings.weight.detach()
        tensors = steering.read(Path(resolve(generator.name)), config, encoder) if steered else None
        if tensors is not None:
            adapter.load_state_dict(tensors)
        else:
            ids = generator.tokenizer(config.instruction, add_special_tokens=False)["input_ids"] or [generator.eos_id]
            repeated = [ids[i % len(ids)] for i in range(config.soft_prompt_tokens)]
            adapter.projector.start_from(table_VD, table_VD[repeated])
        return cls(encoder, generator, adapter.to(table_VD.device), starts_steered=tensors is not None)

    @classmethod
    def from_pretrained(
        cls, adapter: str | Path, *, encoder: str | None = None, generator: str | None = None, device: str = "cpu"
    ) -> "PromptOptimizer":
        """Load an adapter with the backbones that it names (or the ones given here).

        Args:
            adapter: adapter folder, training run, or the adapter's name on the Hugging Face Hub.
            encoder, generator: local folders or Hub names, in place of the ones that the adapter names.
            device: where to.

        Raises:
            AdapterError, BackboneError: the adapter or a backbone cannot be loaded, or a backbone that the adapter
                names has other weights than it was trained for.
            ValueError: they do not fit together.
        """
        saved = adapter_folder.read(adapter_folder.fetch(adapter))
        model = cls(
            load_encoder(encoder or saved.encoder.name, device),
            load_generator(generator or saved.generator.name, device),
            Adapter(saved.config).to(device),
        )
        for option, given, named, backbone in (
            ("--encoder", encoder, saved.encoder, model.encoder),
            ("--generator", generator, saved.generator, model.generator),
        ):
            if given is None and named.sha256 and backbone.sha256 != named.sha256:
                raise adapter_folder.AdapterError(
                    f"the adapter in {adapter} was trained for other weights of {named.name!r} than are there now; "
                    f"train it again, or give the weights it was trained for with {option}"
                )
        model.load_adapter(saved, str(adapter))
        return model.eval()

    def load_adapter(self, saved: SavedAdapter, name: str) -> None:
        """Take over the weights, the card, the frequent sentences and the facts of a saved adapter.

        Raises:
            AdapterError: the weights do not fit.
        """
        try:
            self.adapter.load_tensors(saved.tensors)
        except RuntimeError as error:
            raise adapter_folder.AdapterError(f"the weights in {name} do not fit its configuration: {error}") from None
        self.trained, self.card, self.sentences = saved.training, saved.card, saved.sentences

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter, its configuration and its card as a folder that :meth:`from_pretrained` loads.

        The frozen models are not written: the configuration names them, with fingerprints of their weights.
        """
        adapter_folder.write(
            Path(folder),
            self.adapter,
            BackboneName(recorded_name(self.encoder.name), self.encoder.sha256),
            BackboneName(recorded_name(self.generator.name), self.generator.sha256),
            self.trained,
            self.card,
            self.sentences,
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, message: str = "Upload adapter"
    ) -> str:
        """Upload the adapter to the repository ``owner/name`` of the Hugging Face Hub, made where there is none.

        By default with the token that ``hf auth login`` has stored. Returns the URL of the commit.

        Raises:
            ValueError: a frozen model is a local folder, which nobody else could load.
            HfHubHTTPError: the Hub refused.
        """
        for name in (self.encoder.name, self.generator.name):
            if Path(recorded_name(name)).is_absolute():
                raise ValueError(
                    f"the adapter belongs to the local folder {name!r}, which nobody else can load: push that model "
                    "first, and load the adapter with its Hub name"
                )
        hub = HfApi(token=token)
        hub.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).commit_url

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def form(self) -> Form:
        """What T5 writes: what stands behind the prompt, or all of it."""
        return self.adapter.config.form

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Raw embeddings of texts, float32 [B, E]."""
        tokens = self.encoder.tokenize(texts, self.device)
        hidden_BLE = self.encoder_model(**tokens).last_hidden_state
        return pool(hidden_BLE, tokens["attention_mask"], self.adapter.config.pooling)

    def encode(self, embedding_BE: Tensor, ids_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Run T5's encoder over soft prompts and prompt: hidden states [B, P+S, D] and their mask [B, P+S]."""
        return self.generator.encode_soft(self.adapter(embedding_BE), ids_BS, mask_BS)

    @torch.no_grad()
    def states(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """T5's encoder states of raw prompts behind their soft prompts [B, P+S, D], and their mask [B, P+S]."""
        tokens = self.generator.tokenize(texts, MAX_SOURCE_TOKENS, self.device)
        return self.encode(self.embed(texts), tokens["input_ids"], tokens["attention_mask"])

    def generate_ids(self, texts: list[str], max_length: int = 200, **options: Any) -> list[list[int]]:
        """Token ids of enhanced prompts, as :meth:`~neuro_latent_trainer.backbones.Generator.write_ids` writes them."""
        return self.generator.write_ids(*self.states(texts), max_length, **options)

    def write(self, texts: list[str], max_length: int = 200, **options: Any) -> list[str]:
        """What T5 writes for each text (times ``num_return_sequences``): complements or rewrites, as the form is."""
        rows = self.generate_ids(texts, max_length, **options)
        return [text.strip() for text in self.generator.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def generate(self, texts: list[str], max_length: int = 200, **options: Any) -> list[str]:
        """Enhanced prompts, one a text (times ``num_return_sequences``), without gate and guard."""
        written = self.write(texts, max_length, **options)
        if self.adapter.config.form == "rewrite":
            return written
        copies = len(written) // max(1, len(texts))
        return [join(texts[i // copies], text) for i, text in enumerate(written)]
