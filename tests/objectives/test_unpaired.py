"""KTO and BCO: their formulas restated, TRL's KTO loss on the same numbers, and the numbers that a batch gives them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from setsail.objectives import GroupLogProbs, bco, bco_reward_shift, dpo, kto, kto_reference_point

POLICY, REFERENCE = (-31.5, -28.0, -18.25, -44.5), (-30.0, -29.5, -21.0, -40.0)
MARKS = (1.0, -1.0, 1.0, -1.0)
LOG_RATIOS = [policy - reference for policy, reference in zip(POLICY, REFERENCE, strict=True)]
BOTH: dict[str, Callable[..., Tensor]] = {
    "kto": partial(kto, reference_point=0.8, desirable_weight=1.3, undesirable_weight=0.7),
    "bco": partial(bco, shift=0.15),
}
each_objective = pytest.mark.parametrize("name", BOTH)


def column(numbers: tuple[float, ...]) -> Tensor:
    """One completion a group, float64."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(-1)


def _record() -> GroupLogProbs:
    return GroupLogProbs(column(POLICY).requires_grad_(), column(REFERENCE))


def sigmoid(number: float) -> float:
    return 1 / (1 + math.exp(-number))


# KTO.


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("point", [0.0, 0.8])
def test_kto_is_one_minus_the_papers_value(beta: float, point: float) -> None:
    found = kto(
        _record(), column(MARKS), beta, reference_point=point, desirable_weight=1.3, undesirable_weight=0.7
    ).tolist()
    wanted = [
        1.3 * (1 - sigmoid(beta * (h - point))) if mark > 0 else 0.7 * (1 - sigmoid(beta * (point - h)))
        for h, mark in zip(LOG_RATIOS, MARKS, strict=True)
    ]
    assert found == pytest.approx(wanted, rel=1e-12)


def test_a_negative_reference_point_counts_as_zero() -> None:
    below, zero = (kto(_record(), column(MARKS), reference_point=point) for point in (-2.0, 0.0))
    assert torch.equal(below, zero)


def test_no_gradient_flows_through_the_reference_point() -> None:
    point = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    loss = kto(_record(), column(MARKS), reference_point=point).sum()
    (slope,) = torch.autograd.grad(loss, point, allow_unused=True)
    assert slope is None


def test_kto_hardly_listens_far_from_the_reference_point() -> None:
    """Its force has the shape of a bell, where that of DPO is a step."""
    slopes = []
    for h in (-60.0, 0.0, 60.0):
        policy = torch.tensor([[h]], dtype=torch.float64, requires_grad=True)
        loss = kto(GroupLogProbs(policy, torch.zeros_like(policy)), torch.ones_like(policy), 0.1, reference_point=0.0)
        slopes.append(torch.autograd.grad(loss.sum(), policy)[0].item())
    assert slopes[1] == pytest.approx(-0.1 / 4)
    assert slopes[0] == pytest.approx(slopes[2])
    assert abs(slopes[0]) < abs(slopes[1]) / 50


def test_the_reference_point_is_the_clamped_mean_of_the_mismatched_log_ratios() -> None:
    record = _record()
    assert kto_reference_point(record).item() == pytest.approx(max(0.0, sum(LOG_RATIOS) / 4))
    away = GroupLogProbs(record.policy + 2, record.reference)
    assert kto_reference_point(away).item() == pytest.approx(sum(LOG_RATIOS) / 4 + 2)
    assert not kto_reference_point(away).requires_grad
    assert kto_reference_point(GroupLogProbs(record.policy - 2, record.reference)).item() == 0


def test_a_reference_point_needs_completions() -> None:
    with pytest.raises(ValueError, match="a mean over mismatched completions of the batch, got none"):
        kto_reference_point(GroupLogProbs(torch.zeros(0, 1), torch.zeros(0, 1)))


def _trl_loss(policy: Tensor, mismatched: GroupLogProbs, beta: float, weights: tuple[float, float]) -> tuple[Any, Any]:
    """The loss of TRL's KTOTrainer, given log-probs: its model and its batch are stand-ins of one token an answer."""
    trl = pytest.importorskip("trl", reason="trl is not installed: nothing to compare with")
    rows = len(policy)
    tokens = torch.ones(rows, 2)
    outputs = SimpleNamespace(log_probs=policy, entropy=torch.zeros(rows, 1), mean_logits=torch.zeros(rows, 1))
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda numbers: numbers),
        _compute_kl_logps=lambda model, batch: mismatched.policy[:, 0].detach(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    batch = {
        "label": torch.tensor([mark > 0 for mark in MARKS]),
        "input_ids": tokens.long(),
        "attention_mask": tokens.long(),
        "completion_mask": tokens.long(),
        "ref_logps": column(REFERENCE)[:, 0],
        "ref_KL_logps": mismatched.reference[:, 0],
    }
    loss = trl.KTOTrainer._compute_loss(trainer, lambda **inputs: outputs, batch, False)
    return loss, trainer._metrics["train"]["kl"][0]


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("moved", [-2.0, 2.0])
def test_kto_is_trls_loss_and_gradient(beta: float, moved: float) -> None:
    record, values = _record(), column(MARKS)
    mismatched = GroupLogProbs(column((-50.0, -41.0, -60.5, -38.0)) + moved, column((-50.5, -40.0, -60.0, -38.5)))
    theirs = column(POLICY).requires_grad_()
    loss, kl = _trl_loss(theirs, mismatched, beta, (1.3, 0.7))
    point = kto_reference_point(mismatched)
    assert point.item() == pytest.approx(kl, abs=1e-12)
    assert (point.item() > 0) == (moved > 0)
    ours = kto(record, values, beta, reference_point=point, desirable_weight=1.3, undesirable_weight=0.7).mean()
    assert ours.item() == pytest.approx(loss.item(), abs=1e-12)
    slopes = [torch.autograd.grad(each, leaf)[0] for each, leaf in ((loss, theirs), (ours, record.policy))]
    torch.testing.assert_close(slopes[1], slopes[0], atol=1e-12, rtol=1e-12)


# BCO.


@pytest.mark.parametrize("shift", [0.0, 0.3, -1.0])
def test_bco_is_the_cross_entropy_of_the_shifted_reward(shift: float) -> None:
    wanted = [-math.log(sigmoid(mark * (0.1 * h - shift))) for h, mark in zip(LOG_RATIOS, MARKS, strict=True)]
    assert bco(_record(), column(MARKS), 0.1, shift=shift).tolist() == pytest.approx(wanted, rel=1e-12)


def test_without_a_shift_two_marks_are_trls_bco_pair_loss() -> None:
    """``-log sigmoid(beta h_chosen) - log sigmoid(-beta h_rejected)``."""
    losses = bco(_record(), column(MARKS), 0.1, shift=0.0)
    chosen, rejected = (0.1 * h for h in LOG_RATIOS[:2])
    assert (losses[0] + losses[1]).item() == pytest.approx(-math.log(sigmoid(chosen)) - math.log(sigmoid(-rejected)))


def test_a_desirable_and_an_undesirable_loss_are_at_least_dpo_and_closest_halfway() -> None:
    record = _record()
    pair = GroupLogProbs(record.policy.detach().view(2, 2), record.reference.view(2, 2)).pair()
    reward = 0.1 * record.log_ratio().detach().view(2, 2)
    shifts = torch.linspace(-2, 2, 401, dtype=torch.float64)
    gaps = torch.stack(
        [bco(record, column(MARKS), 0.1, shift=shift).view(2, 2).sum(-1) - dpo(pair, beta=0.1) for shift in shifts]
    )
    assert (gaps > 0).all()
    torch.testing.assert_close(shifts[gaps.argmin(0)], reward.mean(-1), atol=0.005, rtol=0)


def test_no_gradient_flows_through_the_shift() -> None:
    shift = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bco(_record(), column(MARKS), shift=shift).sum(), shift, allow_unused=True)
    assert slope is None


def test_in_the_reward_shift_each_kind_counts_half() -> None:
    record, values = _record(), column((1.0, -1.0, 1.0, 1.0))
    rewards = [0.2 * h for h in LOG_RATIOS]
    found = bco_reward_shift(record, values, 0.2)
    assert found.item() == pytest.approx(((rewards[0] + rewards[2] + rewards[3]) / 3 + rewards[1]) / 2)
    assert not found.requires_grad


@pytest.mark.parametrize("mark", [1.0, -1.0])
def test_a_reward_shift_needs_both_kinds(mark: float) -> None:
    with pytest.raises(ValueError, match="got only one kind; keep the running mean"):
        bco_reward_shift(_record(), column((mark,) * 4))


# Both.


@each_objective
def test_a_group_of_several_completions_is_their_mean(name: str) -> None:
    record, values = _record(), column(MARKS)
    single = BOTH[name](record, values)
    together = BOTH[name](GroupLogProbs(record.policy.view(2, 2), record.reference.view(2, 2)), values.view(2, 2))
    assert single.shape == (4,)
    torch.testing.assert_close(together, single.view(2, 2).mean(-1), atol=1e-12, rtol=1e-12)
    flipped = GroupLogProbs(record.policy.view(2, 2).flip(1), record.reference.view(2, 2).flip(1))
    torch.testing.assert_close(BOTH[name](flipped, values.view(2, 2).flip(1)), together, atol=1e-12, rtol=1e-12)


@each_objective
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    record, values = _record(), column(MARKS)
    (found,) = torch.autograd.grad(BOTH[name](record, values).sum(), record.policy)
    above, below = (
        BOTH[name](GroupLogProbs(record.policy.detach() + step, record.reference), values) for step in (1e-6, -1e-6)
    )
    torch.testing.assert_close(found[:, 0], (above - below) / 2e-6, atol=1e-7, rtol=1e-6)
    assert (found.sign() == -values).all()


@each_objective
def test_policy_and_reference_enter_as_a_ratio(name: str) -> None:
    record, values = _record(), column(MARKS)
    moved = GroupLogProbs(record.policy + 2, record.reference + 2)
    torch.testing.assert_close(BOTH[name](moved, values), BOTH[name](record, values))


@each_objective
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_extreme_log_probs_stay_finite(name: str, far: float) -> None:
    policy = torch.tensor([[far], [far]], requires_grad=True)
    loss = BOTH[name](GroupLogProbs(policy, torch.zeros(2, 1)), torch.tensor([[1.0], [-1.0]]))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), policy)[0].isfinite().all()


@each_objective
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            torch.tensor([[1.0], [0.0], [1.0], [-1.0]]),
            r"\+1 \(desirable\) or -1 \(undesirable\), got 0.0; drop unmarked",
        ),
        (torch.tensor([[1.0], [0.5], [1.0], [-1.0]]), r"got 0.5; drop unmarked"),
        (torch.ones(4), r"shape \(4, 1\), got torch.float32 of shape \(4,\)"),
        (torch.ones(4, 1, dtype=torch.bool), "values must be a floating tensor"),
    ],
    ids=["unmarked", "soft", "flat", "bool"],
)
def test_other_marks_are_refused(name: str, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BOTH[name](_record(), values)


@each_objective
@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_beta_must_be_positive(name: str, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got"):
        BOTH[name](_record(), column(MARKS), beta=beta)


@pytest.mark.parametrize("which", ["desirable_weight", "undesirable_weight"])
def test_weights_must_be_positive(which: str) -> None:
    arguments: dict[str, Any] = {which: 0.0}
    with pytest.raises(ValueError, match=f"{which} must be positive, got 0.0"):
        kto(_record(), column(MARKS), reference_point=0.0, **arguments)


def test_the_number_of_the_batch_has_no_default() -> None:
    with pytest.raises(TypeError, match="reference_point"):
        kto(_record(), column(MARKS))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="shift"):
        bco(_record(), column(MARKS))  # type: ignore[call-arg]
