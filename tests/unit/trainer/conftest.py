"""Small training runs over the tiny pair."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
import transformers

from neuro_latent_trainer import sample
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.settings import TrainConfig
from neuro_latent_trainer.training import Run
from tests import tiny

torch.set_num_threads(1)

SMALL: dict[str, Any] = {
    "form": "complement",
    "phase1_epochs": 2,
    "phase2_epochs": 2,
    "batch_size": 8,
    "black_box_width": 32,
    "bottleneck_width": 16,
    "soft_prompt_tokens": 4,
    "max_source_tokens": 16,
    "max_target_tokens": 24,
    "sample_every": 0,
    "save_every": 0,
}


def sample_records(start: int, end: int) -> list[Record]:
    return sample.sample_records()[start:end]


@pytest.fixture(scope="session")
def responder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random causal language model in hub format."""
    folder = tmp_path_factory.mktemp("responder")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizers.generator_tokenizer(tiny.sample_texts(), 600), eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class Crash(Exception):
    """As if the machine lost power."""


@dataclass
class Recorder:
    """An observer that keeps what it is told and can stop or crash the run after a step."""

    stop_after: int | None = None
    crash_after: int | None = None
    run: Run | None = None
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    validations: dict[int, dict[str, float]] = field(default_factory=dict)
    texts: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def begin(self, step: int, validated: bool) -> None: ...

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, n: int, note: str = "") -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.losses[step] = values
        if step == self.crash_after:
            raise Crash
        if step == self.stop_after:
            assert self.run is not None
            self.run.stop_requested = True

    def validation(self, step: int, values: dict[str, float]) -> None:
        self.validations[step] = values

    def samples(self, step: int, pairs: list[tuple[str, str]]) -> None:
        self.texts[step] = pairs


class MakeRun(Protocol):
    def __call__(
        self,
        name: str = "run",
        observer: Any = None,
        train: list[Record] | None = None,
        validation: list[Record] | None = None,
        embeddings_dir: Path | None = None,
        **settings: Any,
    ) -> Run: ...


def run_maker(pair: Any, folder: Path) -> MakeRun:
    """Makes runs of 5 batches an epoch in ``folder/name``; the observer is a :class:`Recorder` unless one is given."""

    def make(
        name: str = "run",
        observer: Any = None,
        train: list[Record] | None = None,
        validation: list[Record] | None = None,
        embeddings_dir: Path | None = None,
        **settings: Any,
    ) -> Run:
        observer = observer or Recorder()
        run = Run(
            TrainConfig(encoder=str(pair.encoder), generator=str(pair.generator), **{**SMALL, **settings}),
            sample_records(0, 40) if train is None else train,
            sample_records(40, 48) if validation is None else validation,
            folder / name,
            observer,
            torch.device("cpu"),
            "sample.jsonl",
            embeddings_dir,
        )
        if isinstance(observer, Recorder):
            observer.run = run
        return run

    return make


@pytest.fixture
def make_run(pair: Any, tmp_path: Path) -> MakeRun:
    return run_maker(pair, tmp_path)
