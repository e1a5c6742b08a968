"""The model card of an adapter folder."""

from typing import Any

from neuro_latent_trainer.adapter import AdapterConfig
from neuro_latent_trainer.config import TrainConfig


def model_card(config: TrainConfig, adapter: AdapterConfig, training: dict[str, Any]) -> str:
    """Markdown with what the adapter is, what it was trained on, its figures and its limits."""
    width = adapter.encoder_width
    return f"""---
library_name: neuro-latent
license: apache-2.0
pipeline_tag: text-generation
tags: [prompt-optimization, soft-prompts, t5]
---
# Neuro-Latent adapter

Turns a raw prompt into {adapter.soft_prompt_tokens} soft prompts for a frozen T5, which then writes the enhanced
prompt. It works only with the two frozen models it was trained for.

| | |
|---|---|
| encoder | `{config.encoder}` (width {width}, {adapter.pooling} pooling) |
| generator | `{config.generator}` (width {adapter.generator_width}) |
| black box | {width} → {adapter.black_box_width} → {width}, ReLU, dropout {adapter.dropout} |
| projector | {adapter.projector}, {adapter.soft_prompt_tokens} soft prompts |

## Training
Data: `{training["data"] or "not named"}`, {training["records"]} records, {training["steps"]} steps.
Epochs: {config.phase1_epochs} of distillation, {config.phase2_epochs} of contrastive training; seed {config.seed}.

Cross-entropy of held-out enhanced prompts, in nats a token (targets cut at {config.max_target_tokens} tokens):

| before training | now |
|---|---|
| {training["validation_loss_start"]:.4f} | {training["validation_loss_end"]:.4f} |

## Use
```
neuro-latent export --adapter . --output repository
neuro-latent serve --repository repository
neuro-latent optimize "Create a function"
```

## Limits
The figures above say how likely the reference rewrites are, not that a rewritten prompt leads to better answers. What
the generator writes is not checked against facts; read it before you use it.
"""
