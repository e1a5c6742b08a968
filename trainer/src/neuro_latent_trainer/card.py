"""The model card of an adapter folder."""

from typing import Any

from neuro_latent_core.form import Form
from neuro_latent_trainer.adapter import AdapterConfig
from neuro_latent_trainer.settings import TrainConfig

WRITES: dict[Form, str] = {
    "complement": "writes what is missing behind the prompt. The prompt itself stays as it is, byte for byte; where\n"
    "there is nothing to add, nothing is added.",
    "rewrite": "writes an enhanced prompt in its place.",
}


def model_card(config: TrainConfig, adapter: AdapterConfig, training: dict[str, Any]) -> str:
    """Markdown with what the adapter is, what it was trained on, its figures and its limits.

    ``training`` is what the adapter folder keeps of the run; where it has a ``gate``, the card shows its curve.
    """
    width = adapter.encoder_width
    return f"""---
library_name: neuro-latent
license: apache-2.0
pipeline_tag: text-generation
tags: [prompt-optimization, soft-prompts, t5]
---
# Neuro-Latent adapter

Turns a raw prompt into {adapter.soft_prompt_tokens} soft prompts for a frozen T5, which then
{WRITES[adapter.form]} It works only with the two frozen models it was trained for.

| | |
|---|---|
| form | {adapter.form} |
| encoder | `{config.encoder}` (width {width}, {adapter.pooling} pooling) |
| generator | `{config.generator}` (width {adapter.generator_width}) |
| black box | {width} → {adapter.black_box_width} → {width}, ReLU, dropout {adapter.dropout} |
| projector | {adapter.projector}, {adapter.soft_prompt_tokens} soft prompts |

## Training
Data: `{training["data"] or "not named"}`, {training["records"]} records, {training["steps"]} steps.
Epochs: {config.phase1_epochs} of distillation, {config.phase2_epochs} of contrastive training; seed {config.seed}.

Cross-entropy of held-out {adapter.form}s, in nats a token (cut at {config.max_target_tokens} tokens):

| before training | now |
|---|---|
| {training["validation_loss_start"]:.4f} | {training["validation_loss_end"]:.4f} |

{_gate((training.get("gate") or {}).get("curve", []))}## Use
```
neuro-latent export --adapter . --output repository
neuro-latent serve --repository repository
neuro-latent optimize "Create a function"
```

## Limits
The cross-entropy says how likely the reference {adapter.form}s are, not that what the generator writes leads to better
answers. It is not checked against facts; read it before you use it.
"""


def _gate(curve: list[dict[str, float]]) -> str:
    """What the gate lets through at some thresholds; "" where there is no gate."""
    if not curve:
        return ""
    rows = "".join(
        f"| {row['threshold']:.2f} | {row['served']:.0%} | {row['apt']:.0%} |\n"
        for row in sorted(curve, key=lambda row: row["threshold"])
    )
    return f"""## The gate
A text is withheld, and the raw prompt served, where the model's confidence is below a threshold. On prompts of kinds
that the adapter was not trained on:

| least confidence | prompts that get a text | of these apt |
|---|---|---|
{rows}
"""
