"""The gate: how sure the model may be that its text is apt, from signals that cost next to nothing.

Before anything is written, the intent says how near the prompt is to the training prompts, whether those near it have
something to add, and how clearly it belongs to one group of them; afterwards the text's mean log-probability is added::

    confidence = sigmoid(prior(embedding, intent) + logprob_weight * mean_logprob)

A text below the adapter's threshold is withheld. The weights are fitted by logistic regression on prompts of groups
that the adapter has not seen (:mod:`neuro_latent_trainer.gate_fit`).

Shape letters: ``B`` batch, ``E`` encoder width, ``K`` training prompts in the index, ``G`` groups, ``F`` features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INDEX_SHARPNESS = 20.0
"""Of the weights by similarity with which the index votes on whether anything is to be added."""
GROUP_SHARPNESS = 20.0
FEATURES = ("nearest training prompt", "neighbours without a complement", "clearest group")


class Gate(nn.Module):
    """A small index of training prompts, and the weights of what it says.

    All are buffers: nothing here is trained by gradients.

    Attributes:
        index: unit vectors of the intents of training prompts [K, E]; of their standardised raw embeddings in adapters
            of earlier versions (an intent tells twice as well what asks for nothing: docs/experiments.md).
        of_intents: 1 or 0, which of both [1].
        empty: 1 where a training prompt has nothing to add [K].
        groups: unit vectors, the mean intents of groups of training prompts [G, E].
        weight, bias: of the features [F] and [1].
        logprob_weight: of the text's mean log-probability [1].
        threshold: the least confidence with which a text is served [1].
    """

    index: Tensor
    of_intents: Tensor
    empty: Tensor
    groups: Tensor
    weight: Tensor
    bias: Tensor
    logprob_weight: Tensor
    threshold: Tensor

    def __init__(self, index_KE: Tensor, empty_K: Tensor, groups_GE: Tensor, of_intents: bool = True) -> None:
        super().__init__()
        self._of_intents = of_intents
        self.register_buffer("of_intents", torch.tensor([float(of_intents)]))
        self.register_buffer("index", F.normalize(index_KE.float(), dim=-1))
        self.register_buffer("empty", empty_K.float())
        self.register_buffer("groups", F.normalize(groups_GE.float(), dim=-1))
        self.register_buffer("weight", torch.zeros(len(FEATURES)))
        for name in ("bias", "logprob_weight", "threshold"):
            self.register_buffer(name, torch.zeros(1))

    @classmethod
    def of_state(cls, tensors: dict[str, Tensor]) -> "Gate":
        """A gate of the sizes of saved tensors (names without a prefix)."""
        tensors = {"of_intents": torch.zeros(1), **tensors}
        gate = cls(tensors["index"], tensors["empty"], tensors["groups"], bool(tensors["of_intents"]))
        gate.load_state_dict(tensors)
        return gate

    def features(self, standard_BE: Tensor, intent_BE: Tensor) -> Tensor:
        """:data:`FEATURES` of standardised raw embeddings and their intents, [B, F]."""
        near_BK = F.normalize(intent_BE if self._of_intents else standard_BE, dim=-1) @ self.index.T
        empty_B = (near_BK * INDEX_SHARPNESS).softmax(-1) @ self.empty
        group_B = (F.normalize(intent_BE, dim=-1) @ self.groups.T * GROUP_SHARPNESS).softmax(-1).amax(-1)
        return torch.stack([near_BK.amax(-1), empty_B, group_B], dim=-1)

    def forward(self, standard_BE: Tensor, intent_BE: Tensor) -> Tensor:
        """The logit before anything is written [B, 1]."""
        return (self.features(standard_BE, intent_BE) @ self.weight + self.bias).unsqueeze(-1)
