"""One retraining in one folder.

::

    RUN/retrain.json      what it was started with: a resumed one must be the same
    RUN/feedback.jsonl    the feedback as it was then (only its owner can read it; gone when the decision is there)
    RUN/adapter, *.pt     as of every training run
    RUN/decision.json     new against old
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from neuro_latent_trainer import adapter_folder, checkpoint, files
from neuro_latent_trainer.adapter import Adapter
from neuro_latent_trainer.adapter_folder import AdapterError, SavedAdapter
from neuro_latent_trainer.data import DataError, Record, key
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.retraining.decision import Decision, Evidence, judge
from neuro_latent_trainer.retraining.feedback import read_feedback
from neuro_latent_trainer.retraining.feedback_examples import FeedbackExamples, learn
from neuro_latent_trainer.retraining.retrain_config import RetrainConfig
from neuro_latent_trainer.retraining.training_mix import TrainingMix, mix
from neuro_latent_trainer.settings import CONFIG_FILE, SHAPE, TrainConfig
from neuro_latent_trainer.sources import Sources
from neuro_latent_trainer.training import Observer, Run

START_FILE, FEEDBACK_FILE, DECISION_FILE = "retrain.json", "feedback.jsonl", "decision.json"
VALIDATED_ROWS = 128
"""Of the held-out rows, those that are looked at after each epoch: only to be shown."""


@dataclass(frozen=True)
class Start:
    """What a retraining starts with.

    Attributes:
        base: adapter folder that is served now.
        candidate: adapter to judge in place of one that is trained here; "" is none.
        sources: the original data; None where a responder alone judges a candidate.
        tasks: file of tasks that a responder judges by; "" is none.
        responder: its name; "" is none.
    """

    base: str
    candidate: str
    sources: Sources | None
    config: RetrainConfig
    tasks: str = ""
    responder: str = ""


def begin(folder: Path, start: Start, resume: bool) -> None:
    """Make the folder of a retraining, or check that it is of the one that is gone on with.

    Raises:
        CheckpointError: the folder holds a run and is not to be resumed, or was started with other settings.
        OSError: it cannot be written.
    """
    file = folder / START_FILE
    values = {**asdict(start), "config": start.config.model_dump()}
    if resume and file.is_file():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{file} cannot be read: {error}") from error
        if different := sorted(name for name in values if values[name] != there.get(name)):
            raise checkpoint.CheckpointError(
                f"{folder} was started with another {', '.join(different)}: go on with the same command and --resume, "
                "or choose another --output-dir"
            )
    elif folder.is_dir() and (
        checkpoint.all_in(folder) or any((folder / name).exists() for name in (FEEDBACK_FILE, DECISION_FILE))
    ):
        raise checkpoint.CheckpointError(
            f"{folder} already holds a run: go on with --resume, or choose another --output-dir"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(file, (json.dumps(values, indent=2) + "\n").encode())
        files.write(folder / CONFIG_FILE, start.config.to_toml().encode())


def known_decision(folder: Path) -> Decision | None:
    """What a finished retraining has decided; its figures are left in the file."""
    try:
        found = json.loads((folder / DECISION_FILE).read_text(encoding="utf-8"))
        return Decision(found["promote"], found["reason"], found["counts"])
    except (OSError, KeyError, ValueError):
        return None


def keep_decision(folder: Path, decision: Decision) -> None:
    """Write the decision, and delete the copy of the feedback, so that purged feedback survives nowhere."""
    files.write(folder / DECISION_FILE, (json.dumps(asdict(decision), indent=2) + "\n").encode())
    (folder / FEEDBACK_FILE).unlink(missing_ok=True)


def base_settings(saved: SavedAdapter) -> TrainConfig:
    """The settings that an adapter was trained with; its shape and backbones are those of the adapter itself.

    Raises:
        ValueError: they are out of their range.
    """
    shape = saved.config
    return TrainConfig.from_dict(saved.training.get("config", {})).replace(
        encoder=saved.encoder.name,
        generator=saved.generator.name,
        form=shape.form,
        **{name: getattr(shape, name) for name in SHAPE},
        instruction=shape.instruction,
        precision="auto",  # the base may have been trained on another machine
    )


def settings(base: TrainConfig, adapter: Path, config: RetrainConfig) -> TrainConfig:
    """How the new adapter is trained: from the base, as the base was, but slower and shorter."""
    return base.replace(
        start_from=str(adapter),
        phase1_epochs=config.phase1_epochs,
        phase2_epochs=config.phase2_epochs,
        learning_rate=base.learning_rate * config.rate_factor,
        base_learning_rate=base.base_learning_rate * config.rate_factor,
        max_validation_records=VALIDATED_ROWS,
        sample_every=0,  # texts of users are not written down
    )


def read_records(folder: Path, start: Start, base: TrainConfig) -> tuple[FeedbackExamples, TrainingMix]:
    """The feedback's examples, and all records of the retraining.

    Raises:
        DataError, ValueError: the feedback or the original data cannot be used.
    """
    config = start.config
    original, held_out = start.sources.records(base.validation_share, base.seed) if start.sources else ([], [])
    ratings, malformed = read_feedback(folder / FEEDBACK_FILE)
    form = base.resolved_form
    known = {key(r.raw_prompt): r for r in original if r.target(form) is not None}
    examples = learn(ratings, known, form, config.most_characters, len(malformed), lineage(Path(start.base)))
    return examples, mix(examples.records, original, held_out, form, config)


def training_run(
    folder: Path,
    training_mix: TrainingMix,
    config: TrainConfig,
    data_name: str,
    observer: Observer,
    device: torch.device,
) -> Run | None:
    """The run that trains the new adapter, where it stands; None where it is through.

    Raises:
        AdapterError, BackboneError, CheckpointError: something cannot be loaded.
        DataError: there is nothing to learn.
    """
    if (folder / checkpoint.FINAL).is_file():
        return None
    if not training_mix.distinct:
        raise DataError("there is nothing to learn: no feedback is left to train on")
    shown: list[Record] = [*training_mix.feedback, *training_mix.original]
    run = Run(config, list(training_mix.train), shown, folder, observer, device, data_name)
    if checkpoint.all_in(folder):
        run.restore(checkpoint.newest(folder))
    return run


def is_version(model_version: str | None, adapter: Path) -> bool:
    """Whether a served model version is of this adapter folder: export puts digits of the weights' SHA-256 into it."""
    file = adapter / adapter_folder.WEIGHTS_FILE
    return model_version is not None and file.is_file() and adapter_folder.version(adapter) in model_version


def lineage(adapter: Path) -> list[str]:
    """What tells the model versions of an adapter, and of those that it was retrained from, as far as their folders are
    still there."""
    found: list[str] = []
    while (adapter / adapter_folder.WEIGHTS_FILE).is_file():
        if (digits := adapter_folder.version(adapter)) in found:
            break
        found.append(digits)
        start = adapter.parent / START_FILE
        if start.is_file():
            adapter = Path(json.loads(start.read_text(encoding="utf-8")).get("base", ""))
    return found


def load_beside(old: PromptOptimizer, adapter: Path) -> PromptOptimizer:
    """Another adapter for the same frozen models, which are shared.

    Raises:
        AdapterError: there is none, or it is for other frozen models.
    """
    saved = adapter_folder.read(adapter)
    for what, named, ours in (
        ("encoder", saved.encoder, old.encoder.sha256),
        ("generator", saved.generator, old.generator.sha256),
    ):
        if named.sha256 and named.sha256 != ours:
            raise AdapterError(f"the adapter in {adapter} is for another {what} than the base's")
    try:
        model = PromptOptimizer(old.encoder, old.generator, Adapter(saved.config).to(old.device))
    except ValueError as error:
        raise AdapterError(f"the adapter in {adapter} does not fit the base's frozen models: {error}") from None
    if (theirs := saved.config.form) != (ours := old.adapter.config.form):
        raise AdapterError(f"the adapter in {adapter} is of the {theirs} form, the base of the {ours} form")
    model.load_adapter(saved, str(adapter))
    return model.eval()


def decide(
    folder: Path,
    old: PromptOptimizer,
    adapter: Path,
    evidence: Evidence,
    config: RetrainConfig,
) -> Decision:
    """Judge an adapter and keep the decision in the folder.

    Raises:
        AdapterError: it cannot be loaded beside the old one.
    """
    decision = judge(old, load_beside(old, adapter), evidence, config)
    keep_decision(folder, decision)
    return decision
