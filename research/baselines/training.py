"""Training beside PEFT's prompt tuning, on the same T5 and records: ``python -m research.baselines.training``."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer

from neuro_latent_benchmarks import hardware, report
from neuro_latent_benchmarks.cli import Json, Plot, Quick, finish, session
from neuro_latent_benchmarks.statistics import Spread, significant
from research.synthetic import shapes
from research.synthetic.shapes import Models

OURS: Final = "adapter"
PEFT_SHUFFLED: Final = "PEFT prompt tuning"
PEFT_BUCKETED: Final = "PEFT prompt tuning, our batches"

Block = Callable[[], int]
"""Trains some steps; how many records they had."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How much is measured.

    Attributes:
        batch_size: records a step.
        steps: of a block; systems take turns, a block each.
        rounds: blocks of each system, after one that does not count.
        data: records to train on; None is the sample data.
    """

    batch_size: int = 32
    steps: int = 5
    rounds: int = 5
    data: Path | None = None

    def quick(self) -> "TrainingConfig":
        """Enough to see that it works."""
        return replace(self, batch_size=4, steps=1, rounds=2)


def run_training(models: Models, config: TrainingConfig, log: Callable[[str], None]) -> dict[str, Any]:
    """Records a second of each system, and of ours over theirs by round."""
    with TemporaryDirectory() as folder:
        systems = dict(_systems(models, config, Path(folder), log))
        speeds: dict[str, list[float]] = {name: [] for name in systems}
        for number in range(config.rounds + 1):
            for name, block in systems.items():
                started = time.perf_counter()
                records = block()
                if number:  # the first block warms up
                    speeds[name].append(records / (time.perf_counter() - started))
                    log(f"round {number}: {name} {speeds[name][-1]:.1f} records/s")
    return {
        "records_per_second": {name: Spread.of(found).as_json() for name, found in speeds.items()},
        "times_as_fast": {
            name: significant(Spread.of([a / b for a, b in zip(speeds[OURS], found, strict=True)]).median)
            for name, found in speeds.items()
            if name != OURS
        },
    }


def _systems(
    models: Models, config: TrainingConfig, folder: Path, log: Callable[[str], None]
) -> Iterator[tuple[str, Block]]:
    import torch

    from neuro_latent_trainer.backbones import default_device
    from neuro_latent_trainer.data import read_records, split_records
    from neuro_latent_trainer.evaluation.baselines import prompt_tuned
    from neuro_latent_trainer.sample import write_sample
    from neuro_latent_trainer.settings import TrainConfig
    from neuro_latent_trainer.training import Observer, Run

    data = config.data
    if data is None:
        write_sample(data := folder / "sample.jsonl")
    dataset = read_records(data)
    train, held_out = split_records(dataset.records, 0.05, seed=0)
    settings = TrainConfig(
        encoder=str(models.encoder),
        generator=str(models.generator),
        form=dataset.form,
        batch_size=config.batch_size,
        sample_every=0,
    )
    device = default_device()
    log(f"embedding the texts of {len(train)} records")
    run = Run(settings, train, held_out, folder / "run", Observer(), device)
    run.model.train()
    examples = run.train_examples
    bucketed = examples.endless(config.batch_size, seed=0)

    def ours() -> int:
        done = 0
        for rows in itertools.islice(bucketed, config.steps):
            run.train_step(examples.batch(rows), phase=2)
            done += len(rows)
        return done

    yield OURS, ours

    def shuffled() -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            mixed = torch.randperm(len(examples), generator=generator).tolist()
            for start in range(0, len(mixed), config.batch_size):
                yield mixed[start : start + config.batch_size]

    for name, order in ((PEFT_SHUFFLED, shuffled()), (PEFT_BUCKETED, bucketed)):
        tuned = prompt_tuned(run.model.generator, settings.soft_prompt_tokens, settings.instruction)
        trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.1)

        def theirs(tuned: Any = tuned, order: Any = order, optimizer: Any = optimizer) -> int:
            done = 0
            for rows in itertools.islice(order, config.steps):
                ids, mask, labels = (tensor.to(device) for tensor in examples.tokens(rows))
                optimizer.zero_grad()
                tuned(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
                optimizer.step()
                done += len(rows)
            return done

        yield name, theirs


def training(
    shape: Annotated[shapes.ShapeName, typer.Option(help="Models to train: see research/synthetic/shapes.py.")] = (
        "embedded"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Records to train on; the sample data without it.", metavar="FILE", exists=True)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Records a step.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.", min=1)] = 5,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Records a second of adapter training, beside PEFT's prompt tuning of the same T5 on the same records.

    The adapter's steps are those of phase 2, with all losses. PEFT gets shuffled batches, as a trainer makes them by
    default, and in another turn our batches of records of similar length. The frozen encoder's embeddings are cached
    before the clock starts: a training run computes them once.
    """
    with session():
        from research.baselines import plots

        config = TrainingConfig(batch_size=batch_size, rounds=rounds, data=data)
        config = config.quick() if quick else config
        models = shapes.prepare(shape, "lively", report.progress)
        settings = {
            "shape": shape,
            "weights": shapes.summary(shape),
            **asdict(config),
            "data": str(data) if data else "sample",
        }
        result = report.heading("training", settings, hardware.versions("torch", "transformers", "peft"))
        result |= run_training(models, config, report.progress)
        rows = [
            (name, *(spread[key] for key in ("median", "p10", "p90")), result["times_as_fast"].get(name, 1.0))
            for name, spread in result["records_per_second"].items()
        ]
        report.table("training", ("", "records/s", "p10", "p90", "the adapter is … times as fast"), rows)
        finish(result, plots.training, plot, as_json)


if __name__ == "__main__":
    typer.run(training)
