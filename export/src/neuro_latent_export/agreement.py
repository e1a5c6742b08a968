"""What a quantized repository loses: its graphs against the float32 graphs, on prompts with reference texts.

Shape letters: ``B`` rows, ``T`` reference tokens, ``Q`` encoder tokens, ``V`` vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuro_latent_core.form import join
from neuro_latent_export import parity
from neuro_latent_export.errors import ExportError
from neuro_latent_export.parity import Sessions
from neuro_latent_export.plain import System
from neuro_latent_export.precision import MIN_ROWS, ROWS, Precision, stricter
from neuro_latent_trainer.data import Record, read_records, render_bad_rows
from neuro_latent_trainer.sample import sample_records

MAX_REFERENCE_TOKENS = 128
"""Longer reference texts are cut, as in training."""
BATCH = 8


class AgreementError(ExportError):
    """A precision loses more than its bound; nothing may be published."""


@dataclass(frozen=True)
class CheckData:
    """Prompts with reference texts, and the name under which the manifest mentions them.

    Attributes:
        of_the_model: the texts are of the kind that the model learned to write. Others tell nothing of a precision: far
            from what it would ever write, its next tokens are chance.
    """

    name: str
    records: tuple[Record, ...]
    of_the_model: bool = True


@dataclass(frozen=True)
class Agreement:
    """Agreement of a quantized repository with its float32 graphs.

    Attributes:
        data: name of the check data.
        rows: prompts that were compared.
        reference_tokens: of their reference texts, all together.
        cross_entropy_fp32: of the reference texts by the float32 graphs, in nats a token.
        cross_entropy: the same by the quantized graphs.
        next_token_agreement: share of the reference tokens before which both find the same next token most likely.
        greedy_max_length: the most tokens of a greedy text.
        greedy_identical: share of the prompts whose greedy texts are the same to the last token.
        greedy_token_agreement: mean over the prompts of :func:`common_share` of their two greedy texts.
    """

    data: str
    rows: int
    reference_tokens: int
    cross_entropy_fp32: float
    cross_entropy: float
    next_token_agreement: float
    greedy_max_length: int
    greedy_identical: float
    greedy_token_agreement: float

    @property
    def cross_entropy_change(self) -> float:
        """Nats a token that the quantized graphs lose; below 0 where they happen to be better."""
        return self.cross_entropy - self.cross_entropy_fp32

    def as_json(self) -> dict[str, Any]:
        """The agreement section of the manifest, without the bounds."""
        return {**asdict(self), "cross_entropy_change": self.cross_entropy_change}


def read_check_data(
    path: Path | None = None,
    columns: dict[str, str] | None = None,
    rows: int = ROWS,
    log: Callable[[str], None] = lambda text: None,
) -> CheckData:
    """Rows of a data file that have an enhanced prompt, at most ``rows``, evenly spread over the file.

    Args:
        path: as for :func:`~neuro_latent_trainer.data.read_records`; None takes the prompts of the sample.
        columns: likewise.
        rows: at least :data:`MIN_ROWS`.
        log: told of bad rows.

    Raises:
        DataError: the file cannot be read.
        ValueError: ``rows`` or the file has fewer than :data:`MIN_ROWS`, or ``columns`` does not fit the file.
    """
    if rows < MIN_ROWS:
        raise ValueError(f"a precision is judged on at least {MIN_ROWS} rows, not on {rows}")
    if path is None:
        name, found = "neuro-latent-sample", sample_records()
    else:
        data = read_records(path, columns)
        if data.bad_rows:
            log(render_bad_rows(data.bad_rows))
        data.check_lost()
        name, found = path.name, [r for r in data.records if r.enhanced_prompt is not None]
    if len(found) < MIN_ROWS:
        raise ValueError(
            f"{name} has {len(found)} rows with an enhanced prompt; a precision is judged on at least {MIN_ROWS}"
        )
    count = min(rows, len(found))
    return CheckData(name, tuple(found[i * len(found) // count] for i in range(count)), of_the_model=path is not None)


def greedy_references(model: System, reference: Sessions, data: CheckData) -> CheckData:
    """The same prompts with the texts that the float32 graphs write for them.

    Args:
        model: gives tokenizers and sizes.
        reference: the float32 graphs.
        data: its texts are not looked at.
    """
    records = []
    for first in range(0, len(data.records), BATCH):
        batch = data.records[first : first + BATCH]
        feeds = parity.token_feeds(model, [record.raw_prompt for record in batch])
        for record, ids in zip(batch, parity.greedy(model, reference, feeds), strict=True):
            text = model.generator.decode(ids).strip()
            is_complement = model.form == "complement"
            records.append(replace(record, enhanced_prompt=join(record.raw_prompt, text) if is_complement else text))
    return CheckData(data.name, tuple(records))


def compare(
    model: System,
    reference: Sessions,
    sessions: Sessions,
    data: CheckData,
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Agreement:
    """Run both sets of graphs over the check data.

    Args:
        model: gives tokenizers and sizes.
        reference: the float32 graphs.
        sessions: the quantized graphs.
        data: the rows to compare on; those count that say what to write in the adapter's form.
        progress: called with the rows done and all rows.

    Raises:
        AgreementError: these are fewer than :data:`MIN_ROWS`.
    """
    form = model.form
    records = [record for record in data.records if record.target(form) is not None]
    if len(records) < MIN_ROWS:
        raise AgreementError(
            f"{data.name} has {len(records)} rows for an adapter of the {form} form, of {len(data.records)}; a "
            f"precision is judged on at least {MIN_ROWS}. Nothing was written"
        )
    # Rows of similar length together, so that little is padding.
    targets = model.generator.text_ids([record.target(form) or "" for record in records])
    order = sorted(range(len(targets)), key=lambda row: len(targets[row]))
    losses = np.zeros(2)
    tokens = same_next = 0
    shares: list[float] = []
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        feeds = parity.token_feeds(model, [records[row].raw_prompt for row in rows])
        labels = [targets[row][:MAX_REFERENCE_TOKENS] for row in rows]
        fp32, ours = (_Read.of(model, graphs, feeds, labels) for graphs in (reference, sessions))
        losses += fp32.loss, ours.loss
        tokens += len(fp32.best)
        same_next += int((fp32.best == ours.best).sum())
        shares += [common_share(a, b) for a, b in zip(fp32.greedy, ours.greedy, strict=True)]
        progress(len(shares), len(order))
    return Agreement(
        data=data.name,
        rows=len(shares),
        reference_tokens=tokens,
        cross_entropy_fp32=losses[0] / tokens,
        cross_entropy=losses[1] / tokens,
        next_token_agreement=same_next / tokens,
        greedy_max_length=parity.MAX_LENGTH,
        greedy_identical=sum(share == 1 for share in shares) / len(shares),
        greedy_token_agreement=sum(shares) / len(shares),
    )


def common_share(a: Sequence[int], b: Sequence[int]) -> float:
    """How many tokens two texts have in common before they first differ, as a share of the longer one.

    1 exactly where they are the same, also where both are empty.
    """
    common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return common / max(len(a), len(b)) if a or b else 1.0


def check(agreement: Agreement, precision: Precision) -> None:
    """Hold an agreement against the bounds of its precision.

    Raises:
        AgreementError: it loses more; the message names figure, bound and what to do.
    """
    change, share = agreement.cross_entropy_change, agreement.next_token_agreement
    most, least = precision.max_cross_entropy_change, precision.min_next_token_agreement
    if not change <= most:  # NaN, too
        figure = f"{change:.4f} nats a token of cross-entropy; allowed are {most}"
    elif not share >= least:
        figure = f"the same next token before {1 - share:.2%} of the tokens; allowed are {1 - least:.2%}"
    else:
        return
    others = " or ".join(f"--precision {name}" for name in stricter(precision))
    raise AgreementError(
        f"{precision.name} loses {figure} (on {agreement.rows} rows of {agreement.data}). "
        f"Nothing was written; export with {others}"
    )


@dataclass(frozen=True)
class _Read:
    """What one set of graphs makes of a batch."""

    loss: float
    """Nats, over all reference tokens."""
    best: npt.NDArray[np.int64]
    """The most likely token at each reference token, one row after the other."""
    greedy: list[list[int]]

    @classmethod
    def of(cls, model: System, graphs: Sessions, feeds: dict[str, parity.Ids], labels: list[Any]) -> "_Read":
        start = model.generator_model.config.decoder_start_token_id
        width = max(map(len, labels))
        labels_BT, real_BT = np.zeros((len(labels), width), np.int64), np.zeros((len(labels), width), bool)
        for row, ids in enumerate(labels):
            labels_BT[row, : len(ids)], real_BT[row, : len(ids)] = ids, True
        inputs_BT = np.concatenate([np.full((len(labels), 1), start), labels_BT[:, :-1]], axis=1)
        logprobs_BTV = parity.start_decoder(model, graphs, feeds, width).run(inputs_BT, "logprobs")
        taken_BT = np.take_along_axis(logprobs_BTV, labels_BT[..., None], axis=-1)[..., 0]
        return cls(
            loss=-float(taken_BT[real_BT].sum(dtype=np.float64)),
            best=logprobs_BTV.argmax(axis=-1)[real_BT],
            greedy=parity.greedy(model, graphs, feeds),
        )
