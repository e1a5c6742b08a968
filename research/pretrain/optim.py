"""Optimizer and schedule of the pre-training: Muon for the layers' matrices, AdamW for the rest."""

import torch
from torch import Tensor, nn

NO_MATRICES = ("embed", "shared", "lm_head", "bias", "projector.base", "projector.scale")
"""Parts of the names of parameters that are no matrix of a layer, whatever their shape."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it fast: an x86 processor without AVX-512 is 80 times slower with it."""
    fast = device.type == "cuda" or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return torch.bfloat16 if fast else torch.float32


@torch.no_grad()
def orthogonalise(gradients_NRC: Tensor) -> Tensor:
    """Newton-Schulz iteration on a stack of matrices (Jordan et al. 2024): the nearest semi-orthogonal ones."""
    x = gradients_NRC.to(fast_dtype(gradients_NRC.device))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.to(gradients_NRC.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with all matrices of one shape in one product: a small model's step is else a thousand tiny kernels.

    The update has AdamW's scale, ``0.2 * sqrt(max(rows, columns))`` (Liu et al. 2025).
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    by_shape.setdefault((min(rows, columns), max(rows, columns)), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                gradients = torch.stack([p.grad if p.shape[0] == rows else p.grad.T for p in parameters])  # type: ignore[union-attr]
                state = self.state[parameters[0]]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradients)
                momentum = state["momentum"]
                momentum.lerp_(gradients, 1 - group["momentum"])
                update = orthogonalise(gradients.lerp(momentum, group["momentum"]))
                update *= -group["lr"] * 0.2 * max(rows, columns) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    parameters, [u if p.shape[0] == rows else u.T for p, u in zip(parameters, update, strict=True)]
                )


def make_optimizers(model: nn.Module, rate: float, embedding_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW at ``embedding_rate`` for embeddings, biases and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and not any(part in name for part in NO_MATRICES)
        (matrices if is_matrix else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, rate),
        torch.optim.AdamW(others, lr=embedding_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=others[0].is_cuda),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def rate_factor(progress: float) -> float:
    """Warm-up over 2 %, plateau, linear decay over the last 60 %; ``progress`` in [0, 1]."""
    if progress < 0.02:
        return max(0.02, progress / 0.02)
    return 1.0 if progress < 0.4 else max(0.01, (1.0 - progress) / 0.6)


def take_step(optimizers: list[torch.optim.Optimizer], model: nn.Module, progress: float) -> None:
    """Clip, step and clear."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
