"""The training run: two phases over the adapter, everything else frozen.

Phase 1 (distillation): cross-entropy through the frozen T5, MSE to the enhanced prompt's embedding, KL.
Phase 2 (contrastive): the same cross-entropy, a little MSE, InfoNCE towards the rows' own kinds and against failed
prompts, KL.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from neuro_latent_core.form import Form
from neuro_latent_trainer import adapter_folder, checkpoint, gate_fit
from neuro_latent_trainer.adapter import AdapterConfig
from neuro_latent_trainer.backbones import Encoder, Generator, load_encoder, load_generator
from neuro_latent_trainer.card import model_card
from neuro_latent_trainer.checkpoint import Position
from neuro_latent_trainer.choices import INSTRUCTIONS, without_removed
from neuro_latent_trainer.data import FEEDBACK, Record, sample_records
from neuro_latent_trainer.embeddings import EmbeddingCache
from neuro_latent_trainer.examples import Batch, Examples, all_texts
from neuro_latent_trainer.frequent import frequent_sentences
from neuro_latent_trainer.generation import generation_gradient
from neuro_latent_trainer.losses import ContrastiveHead, distillation_loss, generation_loss, info_nce, soft_prompt_kl
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.schedule import warmup_then_cosine
from neuro_latent_trainer.settings import SHAPE, LossWeights, TrainConfig, differences

SAMPLES = 3
"""How many validation prompts are generated from while training."""
SAMPLE_TOKENS = 64


class Observer:
    """What a run tells while it goes (progress bar, TensorBoard, log file); this one does nothing with it."""

    def begin(self, step: int, validated: bool) -> None:
        """Training begins after ``step``, whose validation was told or will be; what was told of later ones is void."""

    def stage(self, name: str, total: int) -> None:
        """A long stage of ``total`` units begins."""

    def advance(self, n: int, note: str = "") -> None:
        """``n`` units of the stage are done."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Losses and rates after an optimizer step."""

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Validation losses."""

    def samples(self, step: int, pairs: list[tuple[str, str]]) -> None:
        """Raw prompts and what the model writes for them now."""


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    output_dir: str
    adapter: str
    steps: int
    validation_loss_start: float
    validation_loss_end: float
    seconds: float
    interrupted: bool
    form: Form


RIDGE = 0.1
"""Of the linear start, relative to the mean variance of the raw embeddings."""


def ridge(raw_NE: Tensor, target_NE: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of the targets on the raw embeddings: map [E, E] and bias [E] (Hoerl and Kennard 1970)."""
    mean_E, target_mean_E = raw_NE.mean(0), target_NE.mean(0)
    centred_NE = (raw_NE - mean_E).double()
    gram_EE = centred_NE.T @ centred_NE
    penalty = RIDGE * gram_EE.diagonal().mean() + 1e-9
    eye_EE = torch.eye(len(gram_EE), dtype=gram_EE.dtype, device=gram_EE.device)
    map_EE = torch.linalg.solve(gram_EE + penalty * eye_EE, centred_NE.T @ (target_NE - target_mean_E).double())
    linear_EE = map_EE.to(raw_NE.dtype)
    return linear_EE, target_mean_E - mean_E @ linear_EE


def _equal(rows_BE: Tensor) -> Tensor:
    """Which rows are the same: bool [B, B]."""
    _, group_B = rows_BE.unique(dim=0, return_inverse=True)
    return group_B[:, None] == group_B


def _start(config: TrainConfig, encoder: Encoder, generator: Generator) -> PromptOptimizer:
    """The adapter that a run starts with.

    Raises:
        AdapterError: the one to start from has another form or other sizes than the settings say, or cannot be read.
    """
    wanted = AdapterConfig(
        encoder_width=encoder.width,
        generator_width=generator.width,
        **{name: getattr(config, name) for name in SHAPE},
        instruction=config.instruction or INSTRUCTIONS[config.resolved_form],
        form=config.resolved_form,
    )
    model = PromptOptimizer.create(encoder, generator, wanted, steered=config.steered)
    if config.start_from:
        saved = adapter_folder.read(adapter_folder.fetch(config.start_from))
        if different := differences(saved.config.model_dump(), wanted.model_dump()):
            raise adapter_folder.AdapterError(f"cannot start from {config.start_from}, which differs: {different}")
        model.load_adapter(saved, config.start_from)
        model.adapter.gate = None  # of other data
    return model


class Run:
    """One training run in one folder.

    Args:
        train, validation: records; those that have nothing to write in the form of the settings are not used.
        data_name: as the model card names the data.
        embeddings_dir: cache of the encoder's embeddings, that runs can share; by default in ``output_dir``.

    Raises:
        BackboneError: a frozen model cannot be loaded.
        ValueError: there is nothing to train or to validate on.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: list[Record],
        validation: list[Record],
        output_dir: Path,
        observer: Observer,
        device: torch.device,
        data_name: str = "",
        embeddings_dir: Path | None = None,
    ) -> None:
        self.config, self.output_dir, self.observer, self.device = config, output_dir, observer, device
        self.data_name = data_name
        self.processes = PartialState()
        output_dir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        encoder = load_encoder(config.encoder, device)
        generator = load_generator(config.generator, device)
        self.model = _start(config, encoder, generator)
        self.backbones = [encoder.sha256, generator.sha256]
        self.head = ContrastiveHead(encoder.width).to(device)
        table_VD = generator.embeddings.weight.detach()
        self.table_mean, self.table_variance = table_VD.mean(0), table_VD.var(0, correction=0)

        validation = sample_records(validation, config.max_validation_records)
        texts = all_texts(train) + all_texts(validation)
        with self.processes.main_process_first():  # the others find the texts embedded
            self.cache = EmbeddingCache(
                embeddings_dir or output_dir / "embeddings", self.backbones[0], config.pooling, encoder.width
            )
            observer.stage("embedding texts", len(self.cache.missing(texts)))
            self.cache.fill(texts, self.model.embed, progress=observer.advance)
        limits = (config.max_source_tokens, config.max_target_tokens)
        form = self.model.adapter.config.form
        train, self.gate_records, self.groups = self._hold_out_groups(train)
        self.train_examples = Examples(train, generator, self.cache, form, *limits)
        self.validation_examples = Examples(validation, generator, self.cache, form, *limits)
        if not len(self.train_examples) or not len(self.validation_examples):
            what = "an enhanced prompt" if form == "rewrite" else "an enhanced prompt that begins with the raw prompt"
            raise ValueError(f"training and validation each need at least one record with {what}")
        # Nothing that users wrote: what is purged from the feedback must not be in an adapter folder.
        written = [record for record in self.train_examples.records if not record.source.startswith(FEEDBACK)]
        of_prompts = {record.raw_prompt: record.target(form) or "" for record in written}
        self.model.sentences = frequent_sentences(of_prompts.values())
        self.data_digest = f"{self.train_examples.digest()}-{self.validation_examples.digest()}"
        if not config.start_from and not self.model.starts_steered:
            self._fit_start()

        # What all soft prompts have in common lies among T5's embeddings, whose spread is its unit.
        common = [p for name, p in self.model.adapter.named_parameters() if name.endswith(".base")]
        others = [p for name, p in self.model.adapter.named_parameters() if not name.endswith(".base")]
        self.parameters = [*common, *others, *self.head.parameters()]
        self.peak_rates = (config.base_learning_rate * table_VD.std().item(), config.learning_rate)
        groups: list[dict[str, Any]] = [
            {"params": common, "weight_decay": 0.0},
            {"params": [*others, *self.head.parameters()]},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.batches_an_epoch = math.ceil(len(self.train_examples) / config.batch_size)
        self.total_steps = self.batches_an_epoch * (config.phase1_epochs + config.phase2_epochs)
        self.position = Position(phase=1 if config.phase1_epochs else 2)
        self.validation_start: float | None = None
        self.seconds = 0.0
        self.stop_requested = False

    def _hold_out_groups(self, train: list[Record]) -> tuple[list[Record], list[Record], dict[str, str]]:
        """Records to train on, records of held-out groups for the gate, and the group of each raw prompt."""
        form = self.model.adapter.config.form
        records = [record for record in train if record.target(form) is not None]
        if form == "rewrite" or not self.config.gate_share or not records:
            return records, [], {}
        groups = gate_fit.groups_of(records, self.cache.get([record.raw_prompt for record in records]))
        held_out = gate_fit.hold_out(groups, self.config.gate_share)
        sides: tuple[list[Record], list[Record]] = ([], [])
        for record, out in zip(records, held_out, strict=True):
            sides[out].append(record)
        return *sides, {record.raw_prompt: group for record, group in zip(records, groups, strict=True)}

    def _fit_gate(self) -> dict[str, Any] | None:
        """Fit the gate on the groups that were held out; returns what the card says of it."""
        if not self.gate_records:
            return None
        self.observer.stage("fitting the gate", 1)

        def known(records: list[Record]) -> gate_fit.Grouped:
            vectors_NE = self.cache.get([record.raw_prompt for record in records]).to(self.device)
            return gate_fit.Grouped(records, vectors_NE, [self.groups[record.raw_prompt] for record in records])

        self.model.eval()
        found = gate_fit.fit_gate(
            self.model, known(self.train_examples.records), known(self.gate_records), self.config.max_target_tokens
        )
        self.observer.advance(1)
        return found

    def _fit_start(self) -> None:
        """Fit to the training data what needs no gradient: the standardizer, and a black box that begins as the best
        linear guess of the enhanced prompt's embedding."""
        records, adapter = self.train_examples.records, self.model.adapter
        raw_NE, enhanced_NE = (
            self.cache.get(texts).to(self.device)
            for texts in ([r.raw_prompt for r in records], [r.enhanced_prompt or "" for r in records])
        )
        adapter.standardizer.fit(enhanced_NE)
        if self.config.linear_start:
            adapter.black_box.start_from(*ridge(adapter.standardizer(raw_NE), adapter.standardizer(enhanced_NE)))

    # State -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "adapter": self.model.adapter.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng,
            "position": asdict(self.position),
            "config": self.config.model_dump(),
            "records": len(self.train_examples),
            "data": self.data_digest,
            "backbones": self.backbones,
            "validation_start": self.validation_start,
            "seconds": self.seconds,
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it was made with other settings or other data.
        """
        state = checkpoint.load(path)
        try:
            different = differences(without_removed(state["config"]), self.config.model_dump())
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{path} was {error}") from None
        if different:
            raise checkpoint.CheckpointError(f"{path} was made with other settings: {different}")
        if state["records"] != len(self.train_examples):
            raise checkpoint.CheckpointError(
                f"{path} was made on {state['records']} training records; there are {len(self.train_examples)} now"
            )
        if state["data"] != self.data_digest:
            raise checkpoint.CheckpointError(f"{path} was made on other training or validation records")
        if state["backbones"] != self.backbones:
            raise checkpoint.CheckpointError(f"{path} was made with other weights of the encoder or the generator")
        self.model.adapter.load_tensors(state["adapter"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        self.position = Position(**state["position"])
        self.validation_start, self.seconds = state["validation_start"], state["seconds"]

    # Losses ----------------------------------------------------------------------------------------------------

    def backward(self, batch: Batch, phase: int) -> dict[str, float]:
        """Add the gradients of a batch to the trained parameters'.

        Returns:
            All losses, unweighted, and their weighted sum ``total``.
        """
        weights = self.config.weights(1 if phase == 1 else 2)
        adapter = self.model.adapter
        intent_BE = adapter.intent(batch.raw_BE)
        soft_BPD = adapter.projector(intent_BE)
        losses: dict[str, Tensor] = {}
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        if weights.generation:
            mask_BS = self._mask_inputs(batch.source_mask_BS)
            losses["generation"], gradient_BPD = generation_gradient(
                self.model.generator,
                soft_BPD,
                batch.source_ids_BS,
                mask_BS,
                batch.labels_BT,
                self.config.micro_batch_size,
                self.config.precision,
            )
            roots.append(soft_BPD)
            gradients.append(weights.generation * gradient_BPD)
        latent = self._latent_losses(batch, intent_BE, soft_BPD, weights)
        if latent:
            losses |= latent
            roots.append(sum((getattr(weights, name) * value for name, value in latent.items()), torch.tensor(0.0)))
            gradients.append(torch.ones_like(roots[-1]))
        torch.autograd.backward(roots, gradients)
        values = {name: value.item() for name, value in losses.items()}
        return {**values, "total": sum(getattr(weights, name) * value for name, value in values.items())}

    def _latent_losses(
        self, batch: Batch, intent_BE: Tensor, soft_BPD: Tensor, weights: LossWeights
    ) -> dict[str, Tensor]:
        """The losses that need no T5, of those that have a weight."""
        adapter = self.model.adapter
        enhanced_BE = adapter.standardizer(batch.enhanced_BE)
        losses: dict[str, Tensor] = {}
        if weights.distillation:
            losses["distillation"] = distillation_loss(intent_BE, enhanced_BE)
        if weights.contrastive:
            failed_BKE = adapter.standardizer(batch.failed_BKE)
            query_BH, positive_BH = self.head(intent_BE, enhanced_BE)
            hard_BKH = nn.functional.normalize(self.head.key(failed_BKE), dim=-1)
            # Equal embeddings are of equal texts: the same row again, or another answer to the same prompt.
            alike_BB = _equal(batch.raw_BE) | _equal(batch.enhanced_BE)
            losses["contrastive"] = info_nce(
                query_BH,
                positive_BH,
                hard_BKH,
                batch.failed_mask_BK,
                self.config.contrastive_temperature,
                alike_BB,
                batch.kind_B,
            )
        if weights.kl:
            losses["kl"] = soft_prompt_kl(soft_BPD, self.table_mean, self.table_variance)
        return losses

    def _mask_inputs(self, mask_BS: Tensor) -> Tensor:
        """Hide a share of the prompt's tokens in training, so that T5 must use the soft prompts."""
        if not self.model.training or not self.config.input_mask:
            return mask_BS
        # Drawn on the CPU, so that a run gives the same masks on every device.
        kept = torch.rand(mask_BS.shape) >= self.config.input_mask
        return mask_BS * kept.to(mask_BS.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses over the validation records: cross-entropy in nats a token, MSE, and R² of the intent
        over the mean predictor."""
        self.model.eval()
        examples = self.validation_examples
        nats = tokens = squared = by_mean = rows = 0.0
        # Each process takes its share of the batches.
        for start in range(64 * self.processes.process_index, len(examples), 64 * self.processes.num_processes):
            batch = examples.batch(list(range(start, min(start + 64, len(examples))))).to(self.device)
            intent_BE = self.model.adapter.intent(batch.raw_BE)
            soft_BPD = self.model.adapter.projector(intent_BE)
            hidden_BQD, mask_BQ = self.model.generator.encode_soft(soft_BPD, batch.source_ids_BS, batch.source_mask_BS)
            logits_BTV = self.model.generator.logits(hidden_BQD, mask_BQ, batch.labels_BT)
            count, size = int((batch.labels_BT >= 0).sum()), len(batch.raw_BE)
            nats += count * generation_loss(logits_BTV, batch.labels_BT).item()
            tokens += count
            target_BE = self.model.adapter.standardizer(batch.enhanced_BE)
            squared += size * distillation_loss(intent_BE, target_BE).item()
            by_mean += size * target_BE.square().mean().item()  # the training set's mean is 0 when standardised
            rows += size
        self.model.train()
        sums = torch.tensor([nats, tokens, squared, by_mean, rows], dtype=torch.float64, device=self.device)
        if self.processes.num_processes > 1:
            sums = reduce(sums, "sum")
        nats, tokens, squared, by_mean, rows = sums.tolist()
        return {"loss": nats / tokens, "distillation": squared / rows, "intent_r2": 1 - squared / max(by_mean, 1e-12)}

    # The loop --------------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch, phase: int) -> dict[str, float]:
        """One optimizer step; returns the losses.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the weights are as they were.
        """
        factor = warmup_then_cosine(self.position.step, self.total_steps, self.config.warmup_share)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.backward(batch.to(self.device), phase)
        if not math.isfinite(losses["total"]):
            raise FloatingPointError(self._not_finite("loss", losses["total"]))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm).item()
        if not math.isfinite(norm):
            raise FloatingPointError(self._not_finite("gradient's norm", norm))
        self.optimizer.step()
        return losses

    def _not_finite(self, what: str, value: float) -> str:
        return (
            f"the {what} is {value} at step {self.position.step}; "
            "train again, into another folder, with a lower learning rate"
        )

    def _epochs(self) -> Iterator[tuple[int, int]]:
        """The (phase, epoch) pairs that are left."""
        for phase, epochs in ((1, self.config.phase1_epochs), (2, self.config.phase2_epochs)):
            for epoch in range(epochs):
                if (phase, epoch) >= (self.position.phase, self.position.epoch):
                    yield phase, epoch

    def execute(self) -> RunSummary:
        """Train to the end, or to the next batch after :attr:`stop_requested`; both leave a checkpoint."""
        validated: dict[str, float] = {}
        self.observer.begin(self.position.step, self.validation_start is not None and not self.position.batch)
        if self.validation_start is None:
            validated = self.validate()
            self.validation_start = validated["loss"]
            self.observer.validation(0, validated)
        started = time.monotonic()
        before = self.seconds
        self.model.train()
        for phase, epoch in self._epochs():
            batches = self.train_examples.order(self.config.batch_size, (self.config.seed, phase, epoch))
            self.observer.stage(f"phase {phase}, epoch {epoch + 1}", len(batches))
            self.observer.advance(self.position.batch)
            for number in range(self.position.batch, len(batches)):
                losses = self.train_step(self.train_examples.batch(batches[number]), phase)
                self.position = Position(phase, epoch, number + 1, self.position.step + 1)
                self.seconds = before + time.monotonic() - started
                self._observe(losses)
                if self._told_to_stop() and number + 1 < len(batches):
                    validated = self.validate()
                    self._write_adapter(validated["loss"])
                    self._save(checkpoint.PARTIAL)
                    return self._summary(validated["loss"], interrupted=True)
            last_of_phase = epoch + 1 == (self.config.phase1_epochs if phase == 1 else self.config.phase2_epochs)
            self.position = Position(
                2 if last_of_phase else phase, 0 if last_of_phase and phase == 1 else epoch + 1, 0, self.position.step
            )
            validated = self.validate()
            self.observer.validation(self.position.step, validated)
            self._write_adapter(validated["loss"])
            self._save(checkpoint.epoch_file(phase, epoch + 1))
            if self.processes.is_main_process:
                (self.output_dir / checkpoint.PARTIAL).unlink(missing_ok=True)
            if self._told_to_stop():
                return self._summary(validated["loss"], interrupted=True)
        if not validated:  # resumed at the end
            validated = self.validate()
        if self.processes.is_main_process:
            self._write_adapter(validated["loss"], self._fit_gate())
        self._save(checkpoint.FINAL)
        return self._summary(validated["loss"], interrupted=False)

    def sample(self) -> list[tuple[str, str]]:
        """A few held-out prompts, each with what the model writes for it now."""
        raw = [r.raw_prompt for r in self.validation_examples.records[:SAMPLES]]
        self.model.eval()
        written = self.model.generate(raw, SAMPLE_TOKENS)
        self.model.train()
        return list(zip(raw, written, strict=True))

    def _observe(self, losses: dict[str, float]) -> None:
        step = self.position.step
        rate = self.optimizer.param_groups[-1]["lr"]
        self.observer.scalars(step, {**losses, "learning_rate": rate})
        self.observer.advance(1, f"loss {losses['total']:.3f}")
        if self.config.sample_every and step % self.config.sample_every == 0:
            self.observer.samples(step, self.sample())
        if self.config.save_every and step % self.config.save_every == 0:
            self._save(checkpoint.PARTIAL)

    def _told_to_stop(self) -> bool:
        """Whether any process was; all get the same answer."""
        if self.processes.num_processes == 1:
            return self.stop_requested
        return bool(reduce(torch.tensor([float(self.stop_requested)], device=self.device), "sum").item())

    def _save(self, name: str) -> None:
        """Write a checkpoint, once for all processes."""
        if self.processes.is_main_process:
            checkpoint.save(self.output_dir / name, self.state())

    def _write_adapter(self, validation_loss: float, gate: dict[str, Any] | None = None) -> None:
        if not self.processes.is_main_process:
            return
        self.model.trained = {
            "data": self.data_name,
            "records": len(self.train_examples),
            "steps": self.position.step,
            "validation_loss_start": self.validation_start,
            "validation_loss_end": validation_loss,
            "gate": gate,
            "config": self.config.model_dump(),
        }
        self.model.card = model_card(self.config, self.model.adapter.config, self.model.trained)
        self.model.save_pretrained(self.output_dir / "adapter")

    def _summary(self, validation_loss: float, interrupted: bool) -> RunSummary:
        assert self.validation_start is not None
        return RunSummary(
            output_dir=str(self.output_dir),
            adapter=str(self.output_dir / "adapter"),
            steps=self.position.step,
            validation_loss_start=self.validation_start,
            validation_loss_end=validation_loss,
            seconds=self.seconds,
            interrupted=interrupted,
            form=self.config.resolved_form,
        )
