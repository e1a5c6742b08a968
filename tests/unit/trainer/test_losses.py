"""The losses against closed forms, and which parameters each of them reaches."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from neuro_latent_trainer.losses import (
    IGNORE,
    ContrastiveHead,
    distillation_loss,
    generation_loss,
    info_nce,
    soft_prompt_kl,
)
from neuro_latent_trainer.settings import LossWeights
from tests.unit.trainer.conftest import sample_records

LOSSES = ("generation", "distillation", "contrastive", "kl")


def weights(**given: float) -> LossWeights:
    return LossWeights(**{"generation": 0.0, "distillation": 0.0, "contrastive": 0.0, **given})


def first_batch(run: Any) -> Any:
    batch = run.train_examples.batch(list(range(6)))
    assert batch.failed_mask_BK.any(), "the sample must have failed prompts"
    return batch


def test_the_cross_entropy_is_the_mean_over_real_target_tokens() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]], [[math.log(7), 0.0], [9.0, -9.0]]])
    labels = torch.tensor([[1, 0], [1, IGNORE]])
    expected = (-math.log(3 / 4) - math.log(1 / 2) - math.log(1 / 8)) / 3
    assert generation_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_predicting_the_mean_of_standardised_targets_has_a_distillation_loss_of_one() -> None:
    targets = torch.randn(500, 6)
    targets = (targets - targets.mean(0)) / targets.std(0, correction=0)
    assert distillation_loss(torch.zeros_like(targets), targets).item() == pytest.approx(1.0, rel=1e-5)
    assert distillation_loss(targets, targets).item() == 0


def test_the_kl_of_equal_moments_is_zero() -> None:
    table = torch.randn(24, 5) * 3 + 2
    soft = table.reshape(4, 6, 5)
    assert soft_prompt_kl(soft, table.mean(0), table.var(0, correction=0)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("stretch", "shift", "expected"),
    [(1, 1, 0.5), (2, 0, 0.5 * (4 - 1 - math.log(4))), (0.5, -2, 0.5 * (0.25 + 4 - 1 + math.log(4)))],
)
def test_the_kl_has_its_closed_form(stretch: float, shift: float, expected: float) -> None:
    unit = torch.tensor([-1.0, 1.0]).repeat(6).reshape(3, 4, 1).expand(3, 4, 5)  # mean 0, variance 1
    assert soft_prompt_kl(unit * stretch + shift, torch.zeros(5), torch.ones(5)).item() == pytest.approx(expected)


def test_the_kl_of_constant_soft_prompts_is_finite_and_large() -> None:
    soft = torch.zeros(3, 4, 5, requires_grad=True)
    loss = soft_prompt_kl(soft, torch.zeros(5), torch.ones(5))
    loss.backward()
    assert 5 < loss.item() < math.inf
    assert soft.grad is not None
    assert torch.isfinite(soft.grad).all()


def test_info_nce_equals_a_hand_computation_with_masked_negatives() -> None:
    query = F.normalize(torch.randn(3, 4), dim=-1)
    positive = F.normalize(torch.randn(3, 4), dim=-1)
    hard = F.normalize(torch.randn(3, 2, 4), dim=-1)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    total = 0.0
    for i in range(3):
        others = [math.exp(float(query[i] @ positive[j]) / 0.2) for j in range(3)]
        failed = [math.exp(float(query[i] @ hard[i, k]) / 0.2) for k in range(2) if mask[i, k]]
        total -= math.log(others[i] / (sum(others) + sum(failed)))
    assert info_nce(query, positive, hard, mask, 0.2).item() == pytest.approx(total / 3, rel=1e-5)


def test_rows_of_one_kind_are_each_others_positives() -> None:
    query, positive, hard = (F.normalize(torch.randn(*shape), dim=-1) for shape in ((4, 6), (4, 6), (4, 1, 6)))
    mask, kind = torch.tensor([[True], [True], [False], [True]]), torch.tensor([3, 3, -1, -1])
    total = 0.0
    for i, own in enumerate(([0, 1], [0, 1], [2], [3])):  # an unknown kind is nobody else's
        others = [math.exp(float(query[i] @ positive[j]) / 0.2) for j in range(4)]
        below = sum(others) + (math.exp(float(query[i] @ hard[i, 0]) / 0.2) if mask[i, 0] else 0.0)
        total -= sum(math.log(others[j] / below) for j in own) / len(own)
    assert info_nce(query, positive, hard, mask, 0.2, kind_B=kind).item() == pytest.approx(total / 4, rel=1e-5)


def test_unknown_kinds_change_nothing_and_the_same_prompt_is_no_negative() -> None:
    query, positive, hard = torch.randn(3, 6), torch.randn(3, 6), torch.randn(3, 1, 6)
    mask, alike = torch.ones(3, 1, dtype=torch.bool), torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    plain = info_nce(query, positive, hard, mask, 0.2, alike)
    assert info_nce(query, positive, hard, mask, 0.2, alike, torch.full((3,), -1)).item() == plain.item()
    assert plain.item() < info_nce(query, positive, hard, mask, 0.2).item()
    query.requires_grad_()
    info_nce(query, positive, hard, mask, 0.2, alike, torch.tensor([0, 1, 1])).backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_a_batch_knows_the_kinds_of_its_rows(make_run: Any) -> None:
    kinds = ["code", "", "letter", "code", "", "letter"]
    records = [replace(record, kind=kind) for record, kind in zip(sample_records(0, 6), kinds, strict=True)]
    run = make_run("kinds", train=records)
    assert run.train_examples.batch(list(range(6))).kind_B.tolist() == [0, -1, 1, 0, -1, 1]
    assert run.data_digest != make_run("none", train=sample_records(0, 6)).data_digest


def test_what_a_mask_hides_does_not_matter_to_info_nce() -> None:
    query, positive = torch.randn(2, 4), torch.randn(2, 4)
    none = info_nce(query, positive, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), 0.1)
    hidden = info_nce(query, positive, torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool), 0.1)
    assert none.item() == pytest.approx(hidden.item(), rel=1e-6)


def test_the_contrastive_head_gives_unit_vectors() -> None:
    query, key = ContrastiveHead(6, 3)(torch.randn(5, 6), torch.randn(5, 6))
    for vectors in (query, key):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(5))


def test_the_kl_reaches_the_projector(make_run: Any) -> None:
    run = make_run(phase1=weights(), kl_weight=1.0)
    assert run.backward(first_batch(run), 1)["kl"] > 0
    assert all(g is not None for g in gradients(run.model.adapter.projector))


def gradients(module: torch.nn.Module) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


def test_the_same_row_again_is_no_negative_of_itself() -> None:
    query, positive = torch.nn.functional.normalize(torch.randn(2, 3, 4), dim=-1)
    none, no_mask = torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)
    twice = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    query, positive = query[[0, 0, 2]], positive[[0, 0, 2]]
    found = info_nce(query, positive, none, no_mask, 0.1, twice)
    # Rows 0 and 1 each see row 2 alone, as row 1 does without its copy; row 2 has both copies against it.
    last = torch.nn.functional.cross_entropy(query[2:] @ positive.T / 0.1, torch.tensor([2]))
    first = torch.nn.functional.cross_entropy(query[1:2] @ positive[1:].T / 0.1, torch.tensor([0]))
    assert found.item() == pytest.approx(((2 * first + last) / 3).item(), rel=1e-5)
    alone = info_nce(query, positive, none, no_mask, 0.1, torch.eye(3, dtype=torch.bool))
    assert alone.item() == info_nce(query, positive, none, no_mask, 0.1).item()


def test_mse_and_info_nce_alone_never_reach_the_projector(make_run: Any) -> None:
    run = make_run(phase1=weights(distillation=1.0, contrastive=1.0), kl_weight=0.0)
    run.backward(first_batch(run), 1)
    assert all(g is None for g in gradients(run.model.adapter.projector))
    assert all(g is not None and g.abs().sum() > 0 for g in gradients(run.model.adapter.black_box))


def test_the_cross_entropy_through_the_frozen_t5_reaches_black_box_and_projector(make_run: Any) -> None:
    run = make_run(phase1=weights(generation=1.0), kl_weight=0.0)
    run.backward(first_batch(run), 1)
    for module in (run.model.adapter.projector, run.model.adapter.black_box):
        assert all(g is not None and torch.isfinite(g).all() for g in gradients(module))
        assert any(g.abs().sum() > 0 for g in gradients(module) if g is not None)
    assert all(g is None for g in gradients(run.model.generator_model))
    assert all(g is None for g in gradients(run.model.encoder_model))


@pytest.mark.parametrize("off", LOSSES)
def test_a_weight_of_zero_switches_a_loss_off(make_run: Any, off: str) -> None:
    given = {name: 0.0 if name == off else 0.5 for name in LOSSES}
    kl_weight = given.pop("kl")
    run = make_run(phase2=LossWeights(**given), kl_weight=kl_weight)
    losses = run.backward(first_batch(run), 2)
    assert set(losses) == {*LOSSES, "total"} - {off}
    expected = 0.5 * sum(losses[name] for name in LOSSES if name != off)
    assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_the_phases_have_their_own_weights(make_run: Any) -> None:
    run = make_run()
    assert "contrastive" not in run.backward(first_batch(run), 1)
    assert "contrastive" in run.backward(first_batch(run), 2)


def test_a_batch_without_failed_prompts_has_a_contrastive_loss_too(make_run: Any) -> None:
    records = [replace(record, failed_prompts=()) for record in sample_records(0, 4)]
    run = make_run(train=records)
    losses = run.backward(run.train_examples.batch([0, 1, 2, 3]), 2)
    assert math.isfinite(losses["contrastive"])


def test_hidden_prompt_tokens_are_hidden_only_in_training(make_run: Any) -> None:
    run = make_run(input_mask=0.5)
    mask = torch.ones(20, 30, dtype=torch.long)
    run.model.train()
    assert 0.3 < run._mask_inputs(mask).float().mean() < 0.7
    run.model.eval()
    assert run._mask_inputs(mask).all()


def test_micro_batches_give_the_gradients_of_the_whole_batch(make_run: Any) -> None:
    found = []
    for size in (0, 3, 1):
        run = make_run(f"run{size}", micro_batch_size=size, dropout=0.0)
        losses = run.backward(first_batch(run), 2)
        found.append((losses, [g for g in gradients(run.model.adapter) if g is not None]))
    (whole, expected), *others = found
    for losses, got in others:
        assert losses == pytest.approx(whole, rel=1e-5)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-6)
