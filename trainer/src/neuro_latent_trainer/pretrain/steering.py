"""A generator that learns to be steered: soft prompts made of an embedding stand before its source.

With ``e`` the standardised embedding of the text to be written, an adapter will have a guess ``g`` of it, made of the
raw prompt. The best guess in the sense of least squares, with a share ``r`` of the variance explained, is distributed
like ``r * e + sqrt(r * (1 - r)) * n`` with ``n`` of the normal distribution (for Gaussian ``e``). So that is what the
generator sees, with ``r`` drawn anew for every row: from no hint at all (0) to the whole embedding (1). It learns to
use what is there, and not to trust it blindly.
"""

from typing import Any

import torch
from torch import Tensor, nn

from neuro_latent_trainer.adapter import AdapterConfig, ResidualProjector, Standardizer
from neuro_latent_trainer.choices import INSTRUCTION
from neuro_latent_trainer.pretrain.loop import Batch


class SteeredGenerator(nn.Module):
    """A T5, and the projector that makes its soft prompts.

    Args:
        t5: the T5 to train.
        config: of the adapters that it is meant for; their form must be ``residual``.
        instruction_ids: token ids whose embeddings the soft prompts start from.
    """

    def __init__(self, t5: Any, config: AdapterConfig, instruction_ids: list[int]) -> None:
        super().__init__()
        self.t5 = t5
        self.standardizer = Standardizer(config.encoder_width)
        self.projector = ResidualProjector(config)
        table_VD = t5.get_input_embeddings().weight.detach()
        slots = [instruction_ids[i % len(instruction_ids)] for i in range(config.soft_prompt_tokens)]
        self.projector.start_from(table_VD, table_VD[slots])

    def guess(self, embedding_BE: Tensor) -> Tensor:
        """Standardised embeddings, blurred as above [B, E]."""
        standard_BE = self.standardizer(embedding_BE)
        explained_B1 = torch.rand(len(standard_BE), 1, device=standard_BE.device)
        noise_BE = torch.randn_like(standard_BE)
        return explained_B1 * standard_BE + (explained_B1 * (1 - explained_B1)).sqrt() * noise_BE

    def forward(self, batch: Batch, embedding_BE: Tensor) -> Tensor:
        """Logits [B, T, V] of a batch of :func:`~neuro_latent_trainer.pretrain.tasks.generator_batches`.

        Args:
            batch: rows that are not ``steered`` do not see their soft prompts.
            embedding_BE: raw embeddings of the guides.
        """
        soft_BPD = self.projector(self.guess(embedding_BE))
        source_BSD = self.t5.get_input_embeddings()(batch["input_ids"])
        seen_BP = batch["steered"][:, None].expand(-1, soft_BPD.shape[1])
        logits: Tensor = self.t5(
            inputs_embeds=torch.cat([soft_BPD, source_BSD], dim=1),
            attention_mask=torch.cat([seen_BP, batch["attention_mask"]], dim=1),
            decoder_input_ids=self.t5._shift_right(batch["labels"]),
            use_cache=False,
        ).logits
        return logits


def steering_adapter(encoder_width: int, generator_width: int) -> AdapterConfig:
    """The adapter that a steered generator is made for: the default one."""
    return AdapterConfig(encoder_width=encoder_width, generator_width=generator_width, instruction=INSTRUCTION)
