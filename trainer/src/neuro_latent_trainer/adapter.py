"""The trained part: black box and projector.

Shape letters: ``B`` batch, ``E`` encoder width, ``P`` soft prompts, ``D`` generator width.

    raw embedding [B, E] -> standardised [B, E] -> black box -> optimized intent [B, E] -> projector -> [B, P, D]
"""

from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from neuro_latent_core.form import Form
from neuro_latent_trainer.choices import INSTRUCTIONS, Pooling, ProjectorForm, without_removed
from neuro_latent_trainer.gate import Gate
from neuro_latent_trainer.settings_model import Settings


class AdapterConfig(Settings, strict=True):
    """Sizes and form of an adapter; the widths come from the backbones' configs.

    Attributes:
        form: what the generator writes behind the soft prompts: the ``complement`` of the raw prompt, or a ``rewrite``.
    """

    encoder_width: int = Field(ge=1)
    generator_width: int = Field(ge=1)
    black_box_width: int = Field(default=1024, ge=1)
    soft_prompt_tokens: int = Field(default=20, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    projector: ProjectorForm = "residual"
    bottleneck_width: int = Field(default=128, ge=1)
    pooling: Pooling = "mean"
    instruction: str = INSTRUCTIONS["rewrite"]
    form: Form = "rewrite"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What this or an earlier version saved."""
        return cls(**without_removed(values))


OPEN_GATE_LOGIT = 10.0
"""A confidence of almost 1."""


class Standardizer(nn.Module):
    """Subtract the mean and divide by the spread of the training set's embeddings, per dimension.

    A dimension without any spread (as all have when there is one record) is only centred.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, embeddings: Tensor) -> None:
        """Take the statistics from ``embeddings`` [N, E]."""
        self.mean.copy_(embeddings.mean(0))
        spread = embeddings.std(0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(self, embedding_BE: Tensor) -> Tensor:
        return (embedding_BE - self.mean) / self.spread


class BlackBox(nn.Module):
    """Raw embedding -> optimized intent: Linear, ReLU, Dropout, Linear; [B, E] -> [B, E]."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.encoder_width, config.black_box_width)
        self.dropout = nn.Dropout(config.dropout)
        self.contract = nn.Linear(config.black_box_width, config.encoder_width)

    def start_from(self, linear_EE: Tensor, bias_E: Tensor) -> None:
        """Start as the linear map ``x -> x @ linear_EE + bias_E``, or what of it pairs of hidden units can hold.

        ``relu(v'x) - relu(-v'x) = v'x``: each pair carries one singular direction. The other units start as they are,
        but are not heard yet.
        """
        left_EK, values_K, right_KE = torch.linalg.svd(linear_EE, full_matrices=False)
        pairs = min(len(values_K), self.expand.out_features // 2)
        root_K = values_K[:pairs].sqrt()
        into_KE, out_EK = (left_EK[:, :pairs] * root_K).T, right_KE[:pairs].T * root_K
        with torch.no_grad():
            self.expand.weight[: 2 * pairs] = torch.cat([into_KE, -into_KE])
            self.expand.bias[: 2 * pairs] = 0
            self.contract.weight.zero_()
            self.contract.weight[:, : 2 * pairs] = torch.cat([out_EK, -out_EK], dim=1)
            self.contract.bias.copy_(bias_E)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        return self.contract(self.dropout(torch.relu(self.expand(embedding_BE))))


class DenseProjector(nn.Module):
    """The dense form: one Linear E -> P * D, its output at the scale of the generator's embeddings."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.shape = (config.soft_prompt_tokens, config.generator_width)
        self.project = nn.Linear(config.encoder_width, config.soft_prompt_tokens * config.generator_width)

    def start_from(self, table: Tensor, instruction_PD: Tensor) -> None:
        """Match mean and spread of the embedding ``table`` [V, D] for a standardised intent."""
        nn.init.normal_(self.project.weight, std=table.std().item() / self.project.in_features**0.5)
        with torch.no_grad():
            self.project.bias.copy_(table.mean(0).repeat(self.shape[0]))

    def forward(self, intent_BE: Tensor) -> Tensor:
        return self.project(intent_BE).unflatten(-1, self.shape)


class ResidualProjector(nn.Module):
    """The residual form: ``S = S0 + a * LN(U(gelu(D(z))))``.

    S0 starts as the embeddings of an instruction, and ``a`` (one a slot) small, so that at step 0 the system equals
    a T5 with a hard prompt (Residual Prompt Tuning, Razdaibiedina et al. 2023).
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.shape = (config.soft_prompt_tokens, config.generator_width)
        self.down = nn.Linear(config.encoder_width, config.bottleneck_width)
        self.up = nn.Linear(config.bottleneck_width, config.soft_prompt_tokens * config.generator_width)
        self.norm = nn.LayerNorm(config.generator_width)
        self.base = nn.Parameter(torch.zeros(self.shape))
        self.scale = nn.Parameter(torch.zeros(config.soft_prompt_tokens, 1))

    def start_from(self, table: Tensor, instruction_PD: Tensor) -> None:
        """Start at the instruction's embeddings, the residual at a tenth of the spread of ``table`` [V, D]."""
        with torch.no_grad():
            self.base.copy_(instruction_PD)
            self.scale.fill_(0.1 * table.std().item())

    def forward(self, intent_BE: Tensor) -> Tensor:
        residual_BPD = self.up(nn.functional.gelu(self.down(intent_BE))).unflatten(-1, self.shape)
        return self.base + self.scale * self.norm(residual_BPD)


class Adapter(nn.Module):
    """Standardizer, black box, projector and gate: all that training changes.

    Attributes:
        gate: tells from an embedding how sure the model is; None until one is fitted.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.standardizer = Standardizer(config.encoder_width)
        self.black_box = BlackBox(config)
        self.projector = (ResidualProjector if config.projector == "residual" else DenseProjector)(config)
        self.gate: Gate | None = None

    def gate_values(self, embedding_BE: Tensor) -> Tensor:
        """What serving has to know beside the soft prompts, float32 [B, 4].

        The gate's logit, its weight of the text's mean log-probability, the least confidence with which a text is
        served, and 1 for the complement form, 0 for a rewrite. Without a gate everything is served.
        """
        is_complement = float(self.config.form == "complement")
        if self.gate is None:
            open_4 = embedding_BE.new_tensor([OPEN_GATE_LOGIT, 0.0, 0.0, is_complement])
            return open_4.expand(len(embedding_BE), 4)
        prior_B1 = self.gate(self.standardizer(embedding_BE), self.intent(embedding_BE))
        rest_3 = torch.cat([self.gate.logprob_weight, self.gate.threshold, embedding_BE.new_tensor([is_complement])])
        return torch.cat([prior_B1, rest_3.expand(len(embedding_BE), 3)], dim=1)

    def confidence(self, embedding_BE: Tensor, mean_logprob_B: Tensor) -> Tensor:
        """How sure the gate is of texts, in [0, 1]: float32 [B].

        Args:
            embedding_BE: of the raw prompts.
            mean_logprob_B: of the texts' tokens, ``</s>`` included, in nats.
        """
        values_B4 = self.gate_values(embedding_BE)
        return torch.sigmoid(values_B4[:, 0] + values_B4[:, 1] * mean_logprob_B)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved tensors, those of a gate too if there is one.

        Raises:
            RuntimeError: they do not fit the configuration.
        """
        gate = {name.removeprefix("gate."): value for name, value in tensors.items() if name.startswith("gate.")}
        self.gate = Gate.of_state(gate).to(self.standardizer.mean.device) if gate else None
        if self.gate:  # whole by now: those of earlier versions lack a tensor
            tensors = tensors | {f"gate.{name}": value for name, value in self.gate.state_dict().items()}
        self.load_state_dict(tensors)

    def intent(self, embedding_BE: Tensor) -> Tensor:
        """The optimized intent [B, E], in standardised coordinates."""
        return self.black_box(self.standardizer(embedding_BE))

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """Raw embedding [B, E] -> soft prompts [B, P, D]."""
        return self.projector(self.intent(embedding_BE))
