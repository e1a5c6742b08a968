"""All settings of a retraining: what is learned from, how, and when a new adapter may take the old one's place."""

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from neuro_latent_core.encoding import decode
from neuro_latent_trainer.checks import check_at_least, check_positive


@dataclass(frozen=True)
class Margins:
    """How much worse a figure may become and still count as not worse; shares are 0 to 1.

    Attributes:
        ce: nats a token.
        chrf: points of 100. Wide, for a style that people ask for takes texts away from the original data's; the
            cross-entropy is the sharper figure.
        preference_accuracy: how often the text that succeeded is found likelier than the one that failed.
        withheld: share of the texts that gate or guard keep back.
        unchanged: share of the prompts that get the raw prompt again, where something better is known.
        repetition: share of three-word sequences that a text has had before.
    """

    ce: float = 0.05
    chrf: float = 5.0
    preference_accuracy: float = 0.1
    withheld: float = 0.1
    unchanged: float = 0.1
    repetition: float = 0.05

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"margins.{name} must be at least 0, not {value}")


@dataclass(frozen=True)
class RetrainConfig:
    """Settings of a retraining.

    Attributes:
        feedback_share: of the rows of an epoch, the most that are feedback; the rest is original data.
        most_copies: the most times that an epoch repeats a row of feedback.
        held_out_share: of the prompts with feedback, those that are never trained on.
        most_characters: texts of feedback that are longer are left out.
        phase1_epochs, phase2_epochs: of distillation, of contrastive training.
        rate_factor: the learning rates, of those that the base was trained with.
        judged_rows: the most held-out rows of each kind, chosen by a hash.
        least_rows: with fewer held-out rows of a kind nothing is decided.
        max_length: the most tokens of the texts that are written to be judged.
        significance: how likely a chance find may be that any figure is better, over all figures together.
        margins: see :class:`Margins`.

    Raises:
        ValueError: a setting is out of its range; the message names it, its value and the range.
    """

    feedback_share: float = 0.5
    most_copies: int = 4
    held_out_share: float = 0.2
    most_characters: int = 4000
    phase1_epochs: int = 2
    phase2_epochs: int = 1
    rate_factor: float = 0.5
    judged_rows: int = 256
    least_rows: int = 20
    max_length: int = 96
    significance: float = 0.05
    margins: Margins = field(default_factory=Margins)

    def __post_init__(self) -> None:
        for name in ("feedback_share", "held_out_share", "significance"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, not {getattr(self, name)}")
        check_at_least(self, 0, "phase1_epochs", "phase2_epochs")
        check_at_least(self, 1, "most_copies", "most_characters", "max_length")
        check_at_least(self, 2, "judged_rows", "least_rows")
        check_positive(self, "rate_factor")
        if self.phase1_epochs + self.phase2_epochs == 0:
            raise ValueError("phase1_epochs and phase2_epochs are both 0: there is nothing to train")

    def to_toml(self) -> str:
        """The same as :func:`read_config` reads it."""
        values = asdict(self)
        margins = values.pop("margins")
        lines = [f"{name} = {value}" for name, value in values.items()]
        return "\n".join([*lines, *(f"margins.{name} = {value}" for name, value in margins.items())])


def read_config(path: Path) -> RetrainConfig:
    """Settings from a TOML file; what it does not name keeps its default.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or a setting is unknown, of another type or out of its range.
    """
    try:
        values = tomllib.loads(decode(path.read_bytes()))
        margins = values.pop("margins", {})
        if not isinstance(margins, dict):
            raise ValueError("margins must be a table")
        return RetrainConfig(**_checked(RetrainConfig(), values), margins=Margins(**_checked(Margins(), margins)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _checked(defaults: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Values with the names and types of a dataclass's fields."""
    kinds = {f.name: type(getattr(defaults, f.name)) for f in fields(defaults)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"no setting is called {name!r}; there are: {', '.join(kinds)}")
        if isinstance(value, bool) or not isinstance(value, (int, kinds[name])):
            raise ValueError(f"{name} must be a number ({kinds[name].__name__}), not {value!r}")
        found[name] = kinds[name](value)
    return found
