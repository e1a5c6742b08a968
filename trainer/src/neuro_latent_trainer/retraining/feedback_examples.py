"""Training examples from feedback: records to train on.

Every rating is a vote on texts: a thumb on the answer, an edit for the edited text and against the answer. A text
with more votes for it than against it is a success of its raw prompt, one with more against it a failure; where they
are equal nothing is learned.

An adapter of the complement form learns only what it could write: texts that keep the raw prompt at their beginning.
The raw prompt alone is one of them: there was nothing to add.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from neuro_latent_core.form import Form, complement_of, join
from neuro_latent_core.guard import is_blank, is_degenerate
from neuro_latent_core.secrets import has_secret
from neuro_latent_trainer.data import FEEDBACK, Record, key
from neuro_latent_trainer.retraining.feedback import RatedAnswer

EDIT: Final = f"{FEEDBACK}: edit"
LIKED: Final = f"{FEEDBACK}: liked"
KNOWN: Final = f"{FEEDBACK}: failed"
"""The ``source`` of a record: where its enhanced prompt is from. KNOWN is the original data's, for a failure."""

REASONS: Final = {
    "malformed": "no rows of feedback",
    "other adapter": "on answers of other adapters",
    "superseded": "said something else of the same answer later",
    "secret": "with a secret",
    "too long": "too long",
    "blank edit": "edits without text",
    "edit is the answer": "edits that changed nothing",
    "edit is the prompt": "edits that are the raw prompt again",
    "edit changes the prompt": "edits that changed the raw prompt, which a complement cannot",
    "edit is degenerate": "edits that nobody could use",
    "answer is the prompt": "liked answers that are the raw prompt again",
    "answer changes the prompt": "liked answers that changed the raw prompt, which a complement cannot",
    "answer is degenerate": "liked answers that nobody could use",
    "disputed": "answers with as many votes for as against",
    "no success": "failures of prompts without a success",
}
"""Why something was not learned from, in words."""


@dataclass(frozen=True)
class FeedbackExamples:
    """The training examples that feedback gives.

    Attributes:
        records: one a success, with the failures of the same raw prompt; ``source`` is EDIT, LIKED or KNOWN.
        rows: of feedback, the malformed ones included.
        left_out: by REASONS, how many rows, edits or texts.
        failures: failed prompts over all records, each counted once.
    """

    records: tuple[Record, ...]
    rows: int
    left_out: Mapping[str, int]
    failures: int

    def count(self, source: str) -> int:
        """Records of a source."""
        return sum(record.source == source for record in self.records)

    def describe(self) -> str:
        """One line without any text of a prompt."""
        line = (
            f"{self.rows} rows of feedback: {self.count(EDIT)} edited answers, {self.count(LIKED)} liked ones, "
            f"{self.failures} failed ones to learn from"
        )
        left_out = ", ".join(f"{count} {REASONS[name]}" for name, count in self.left_out.items() if count)
        return f"{line}; left out: {left_out}" if left_out else line


@dataclass
class _Prompt:
    """What is known of one raw prompt: votes, the way each text was written last, and which of them are edits.

    Attributes:
        raw: as it was written last.
        written: by :func:`key`, a text with the raw prompt as it was written then.
    """

    raw: str
    form: Form
    votes: Counter[str] = field(default_factory=Counter)
    written: dict[str, tuple[str, str]] = field(default_factory=dict)
    edits: set[str] = field(default_factory=set)

    def vote(self, text: str, vote: int) -> None:
        self.votes[key(text)] += vote
        self.written[key(text)] = self.raw, text

    def text(self, name: str) -> str:
        """A text by its key; in the complement form behind the raw prompt as that was written last."""
        raw, text = self.written[name]
        if self.form == "rewrite":
            return text
        added = "" if name == key(raw) else complement_of(raw, text)
        return text if added is None else join(self.raw, added)

    def unfit(self, text: str) -> str:
        """Why a text cannot be learned as a success, as REASONS goes on; "" where it can."""
        if key(text) == key(self.raw):
            return "is the prompt" if self.form == "rewrite" else ""
        written = text if self.form == "rewrite" else complement_of(self.raw, text)
        if written is None:
            return "changes the prompt"
        return "is degenerate" if is_degenerate(written) else ""


def learn(
    ratings: Sequence[RatedAnswer],
    known: Mapping[str, Record],
    form: Form,
    most_characters: int,
    malformed: int = 0,
    versions: Collection[str] | None = None,
) -> FeedbackExamples:
    """Make records of ratings.

    A failure stands beside the successes of its raw prompt. Where feedback names none, that of the original data is
    taken; where there is none either, contrastive training has no positive for the failure, and it is counted as
    ``no success``: pushing away from a text without a target would teach no prompt.

    Args:
        ratings: oldest first.
        known: records of the original data that say what to write in the form, by :func:`key` of the raw prompt.
        most_characters: of a text that is learned from.
        malformed: how many rows could not be read.
        versions: parts of the model versions whose answers are meant: those of other adapters teach another style. An
            rating that names no version counts; None takes all.
    """
    left_out = Counter(dict.fromkeys(REASONS, 0))
    left_out["malformed"] = malformed
    # One person's rating of one answer counts once: the last. Nobody's are told apart by their request.
    latest: dict[tuple[str, str, str], RatedAnswer] = {}
    for rated in ratings:
        version = rated.model_version
        if version and versions is not None and not any(part in version for part in versions):
            left_out["other adapter"] += 1
            continue
        holder = f"user {rated.user}" if rated.user else f"request {rated.request_id}"
        place = holder, key(rated.raw_prompt), key(rated.enhanced_prompt)
        left_out["superseded"] += place in latest
        latest.pop(place, None)  # so that it counts at its own time
        latest[place] = rated

    prompts: dict[str, _Prompt] = {}
    for rated in latest.values():
        texts = (rated.raw_prompt, rated.enhanced_prompt, rated.edited_prompt)
        if any(map(has_secret, texts)):  # the model could give it to somebody else
            left_out["secret"] += 1
        elif max(map(len, texts)) > most_characters:
            left_out["too long"] += 1
        elif is_blank(rated.raw_prompt):
            left_out["malformed"] += 1
        else:
            prompt = prompts.setdefault(key(rated.raw_prompt), _Prompt(rated.raw_prompt, form))
            prompt.raw = rated.raw_prompt
            _count(rated, prompt, left_out)

    records: list[Record] = []
    failures = 0
    for name, prompt in prompts.items():
        left_out["disputed"] += sum(vote == 0 for vote in prompt.votes.values())
        wrong = [text for text, vote in prompt.votes.items() if vote < 0 and text]
        successes = {text: EDIT if text in prompt.edits else LIKED for text, vote in prompt.votes.items() if vote > 0}
        pairs = [(prompt.text(text), source) for text, source in successes.items()]
        if not pairs and wrong and name in known and prompt.votes[key(known[name].enhanced_prompt or "")] >= 0:
            prompt.raw = known[name].raw_prompt
            pairs = [(known[name].enhanced_prompt or "", KNOWN)]
        # The newest first: training takes no more than the first few.
        failed = tuple(prompt.text(text) for text in reversed(wrong))
        if not pairs:
            left_out["no success"] += len(failed)
            continue
        failures += len(failed)
        for text, source in pairs:
            records.append(Record(prompt.raw, text, failed, source, "", len(records) + 1))
    return FeedbackExamples(tuple(records), len(ratings) + malformed, dict(left_out), failures)


def _count(rated: RatedAnswer, prompt: _Prompt, left_out: Counter[str]) -> None:
    """Add the votes of an rating to its prompt's."""
    answer, edit = rated.enhanced_prompt, rated.edited_prompt
    if edit:
        if is_blank(edit):
            problem = "blank edit"
        elif key(edit) == key(answer):
            problem = "edit is the answer"
        elif why := prompt.unfit(edit):
            problem = f"edit {why}"
        else:
            # Whoever rewrites an answer wanted another, whatever the thumb says.
            prompt.vote(edit, 1)
            prompt.edits.add(key(edit))
            prompt.vote(answer, -1)
            return
        left_out[problem] += 1
    if rated.rating > 0 and (why := prompt.unfit(answer)):
        left_out[f"answer {why}"] += 1
    else:
        prompt.vote(answer, rated.rating)
