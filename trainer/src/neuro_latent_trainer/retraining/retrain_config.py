"""All settings of a retraining; each is declared here and nowhere else."""

from pydantic import Field, model_validator

from neuro_latent_trainer.settings import check_epochs
from neuro_latent_trainer.settings_model import Settings


class Margins(Settings):
    """How much worse a figure may become and still count as not worse; shares are 0 to 1."""

    ce: float = Field(default=0.05, ge=0, description="Cross-entropy, in nats a token.")
    chrf: float = Field(
        default=5.0,
        ge=0,
        description="chrF, in points of 100. Wide, for a style that people ask for takes texts away from the original "
        "data's; the cross-entropy is the sharper figure.",
    )
    preference_accuracy: float = Field(
        default=0.1, ge=0, description="How often the text that succeeded is found likelier than the one that failed."
    )
    withheld: float = Field(default=0.1, ge=0, description="Share of the texts that gate or guard keep back.")
    unchanged: float = Field(
        default=0.1,
        ge=0,
        description="Share of the prompts that get the raw prompt again, where something better is known.",
    )
    repetition: float = Field(
        default=0.05, ge=0, description="Share of three-word sequences that a text has had before."
    )
    likelihood_gain: float = Field(
        default=0.02, ge=0, description="By the responder: how much likelier a good answer gets, in nats a token."
    )
    margin_gain: float = Field(default=0.05, ge=0, description="By the responder: the same of good less bad answers.")
    good_above_bad: float = Field(
        default=0.05, ge=0, description="By the responder: how often the good answer is likelier than the bad one."
    )
    constraints_gain: float = Field(default=0.05, ge=0, description="By the responder: share of the checks met.")
    wins_gain: float = Field(
        default=0.1, ge=0, description="By the responder's judge: answers better less answers worse than the raw one's."
    )


class RetrainConfig(Settings):
    """Settings of a retraining: what is learned from, how, and when a new adapter may take the old one's place."""

    feedback_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Of the rows of an epoch, the most that are feedback; the rest is original data.",
    )
    most_copies: int = Field(default=4, ge=1, description="The most times that an epoch repeats a row of feedback.")
    held_out_share: float = Field(
        default=0.2, gt=0, lt=1, description="Of the prompts with feedback, those that are never trained on."
    )
    most_characters: int = Field(default=4000, ge=1, description="Texts of feedback that are longer are left out.")
    phase1_epochs: int = Field(default=2, ge=0, description="Epochs of distillation.")
    phase2_epochs: int = Field(default=1, ge=0, description="Epochs of contrastive training.")
    rate_factor: float = Field(
        default=0.5, gt=0, description="The learning rates, of those that the base was trained with."
    )
    judged_rows: int = Field(default=256, ge=2, description="The most held-out rows of each kind, chosen by a hash.")
    least_rows: int = Field(default=20, ge=2, description="With fewer held-out rows of a kind nothing is decided.")
    max_length: int = Field(
        default=96, ge=1, le=512, description="The most tokens of the texts that are written to be judged."
    )
    significance: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="How likely a chance find may be that any figure is better, over all figures together.",
    )
    margins: Margins = Field(
        default=Margins(),
        description="How much worse a figure may become and still count as not worse; shares are 0 to 1.",
    )

    _check_epochs = model_validator(mode="after")(check_epochs)
