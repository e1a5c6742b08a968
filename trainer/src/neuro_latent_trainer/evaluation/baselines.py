"""What an adapter is judged against: PEFT's prompt tuning, and the whole T5 fine-tuned.

Both are trained on the adapter's own data for as many steps of as many rows, and kept, so that a second evaluation
finds them.

Shape letters: ``B`` batch, ``P`` soft prompts, ``D`` generator width.
"""

import copy
import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from neuro_latent_core.form import Form
from neuro_latent_trainer import files
from neuro_latent_trainer.backbones import Generator, autocast, freeze, resolve
from neuro_latent_trainer.choices import Precision
from neuro_latent_trainer.command_line import tracked
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.examples import TokenizedPairs
from neuro_latent_trainer.losses import generation_loss
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.schedule import warmup_then_cosine


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the baselines learn, and how: as the adapter did, but at their own learning rates.

    Attributes:
        soft_prompt_tokens: how many virtual tokens prompt tuning has.
        instruction: stands before the prompt in full fine-tuning, and is what virtual tokens start from.
        prompt_tuning_rate, finetune_rate: AdamW's peak rates, each the best of the ones tried (docs/quality.md).
    """

    steps: int
    batch_size: int
    max_source_tokens: int
    max_target_tokens: int
    soft_prompt_tokens: int
    instruction: str
    form: Form
    prompt_tuning_rate: float = 0.3
    finetune_rate: float = 5e-4
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Precision = "auto"
    seed: int = 0

    @classmethod
    def of(cls, model: PromptOptimizer) -> "Budget":
        """The budget of an adapter that was trained by ``neuro-latent train``.

        Raises:
            ValueError: it does not say how it was trained.
        """
        try:
            trained = model.trained["config"]
            return cls(
                steps=model.trained["steps"],
                batch_size=trained["batch_size"],
                max_source_tokens=trained["max_source_tokens"],
                max_target_tokens=trained["max_target_tokens"],
                soft_prompt_tokens=model.adapter.config.soft_prompt_tokens,
                instruction=model.adapter.config.instruction,
                form=model.adapter.config.form,
                precision=trained.get("precision", "auto"),
                seed=trained.get("seed", 0),
            )
        except KeyError as missing:
            raise ValueError(
                f"the adapter does not say how it was trained ({missing} is missing in its configuration), so that "
                "baselines cannot be trained alike; leave them out with --no-baselines"
            ) from None


def prompt_tuned(generator: Generator, soft_prompts: int, instruction: str) -> Any:
    """A copy of a T5 under PEFT's prompt tuning (Lester et al. 2021), started from an instruction."""
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        num_virtual_tokens=soft_prompts,
        num_transformer_submodules=1,
        prompt_tuning_init=PromptTuningInit.TEXT,
        prompt_tuning_init_text=instruction,
        tokenizer_name_or_path=resolve(generator.name),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a property by its old name
        return get_peft_model(copy.deepcopy(generator.model), config)


class Baselines:
    """Trained baselines of one frozen T5, one data set and one budget, in a folder.

    Args:
        folder: where they are kept; one trained for anything else there is trained anew.
        generator: the frozen T5; it is not changed.
        records: what the adapter was trained on.

    Raises:
        ValueError: no record has an enhanced prompt.
    """

    def __init__(self, folder: Path, generator: Generator, records: Sequence[Record], budget: Budget) -> None:
        self._folder, self._generator, self._budget = folder, generator, budget
        self._limits = (budget.form, budget.max_source_tokens, budget.max_target_tokens)
        self._pairs = TokenizedPairs(records, generator, *self._limits)
        if not len(self._pairs):
            raise ValueError("the baselines need training rows with an enhanced prompt")
        said = [generator.sha256, self._pairs.digest(), asdict(budget)]
        self._key = hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def prompt_tuning(self) -> Tensor:
        """The virtual tokens that PEFT's prompt tuning learns, [P, D]."""
        return self._kept("prompt_tuning", lambda: {"soft": self._tune_prompt()})["soft"]

    def full_finetune(self) -> Generator:
        """The generator with all its weights fine-tuned behind the instruction."""
        model = copy.deepcopy(self._generator.model)
        weights = self._kept("full_finetune", lambda: self._finetune(model))
        model.load_state_dict(weights, strict=False)  # the names of tied weights are missing
        return replace(self._generator, model=freeze(model))

    def _kept(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = self._folder / f"{name}.safetensors"
        device = self._generator.device
        if path.is_file():
            with safe_open(path, "pt", device=str(device)) as file:
                if (file.metadata() or {}).get("key") == self._key:
                    return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        made = make()
        self._folder.mkdir(parents=True, exist_ok=True)
        files.write(path, save({key: tensor.cpu().contiguous() for key, tensor in made.items()}, {"key": self._key}))
        return made

    def _tune_prompt(self) -> Tensor:
        budget = self._budget
        tuned = prompt_tuned(self._generator, budget.soft_prompt_tokens, budget.instruction)
        self._descend(tuned, self._pairs, budget.prompt_tuning_rate, 0.0, "prompt tuning learns")
        soft_1PD: Tensor = tuned.get_prompt(batch_size=1).detach()
        return soft_1PD[0]

    def _finetune(self, model: Any) -> dict[str, Tensor]:
        budget = self._budget
        model.train().requires_grad_(True)
        pairs = TokenizedPairs(self._pairs.records, self._generator, *self._limits, prefix=budget.instruction)
        self._descend(model, pairs, budget.finetune_rate, budget.weight_decay, "full fine-tuning learns")
        return {name: parameter.detach() for name, parameter in model.named_parameters()}  # tied ones once

    def _descend(self, model: Any, pairs: TokenizedPairs, rate: float, weight_decay: float, stage: str) -> None:
        """Train what of a model is not frozen."""
        budget = self._budget
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
        device = self._generator.device
        batches = itertools.islice(pairs.endless(budget.batch_size, budget.seed), budget.steps)
        for step, rows in enumerate(tracked(batches, stage, budget.steps)):
            for group in optimizer.param_groups:
                group["lr"] = rate * warmup_then_cosine(step, budget.steps, budget.warmup_share)
            optimizer.zero_grad(set_to_none=True)
            ids_BS, mask_BS, labels_BT = (tensor.to(device) for tensor in pairs.tokens(rows))
            with autocast(device, budget.precision):
                logits_BTV = model(input_ids=ids_BS, attention_mask=mask_BS, labels=labels_BT).logits
                loss = generation_loss(logits_BTV, labels_BT)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, budget.clip_norm)
            optimizer.step()
