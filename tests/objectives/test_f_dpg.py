"""f-DPG: six divergences against their definition by enumeration, and what the estimate of Z does to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.objectives import GroupLogProbs, f_dpg, f_pseudo_reward, log_partition_leave_one_out, reinforce
from setsail.objectives.divergence_gradients import Divergence
from setsail.policies.tabular import TabularPolicy

TARGET, LOGITS, PROPOSAL = (0.35, 0.25, 0.2, 0.15, 0.05), (0.3, -0.2, 0.5, 0.0, -0.4), (0.1, 0.2, 0.3, 0.15, 0.25)
BETA = 0.5
# The divergence, and the first entry of its gradient in the logits.
KNOWN = {
    "forward_kl": (0.097243, -0.104018),
    "reverse_kl": (0.103072, -0.112105),
    "total_variation": (0.204822, -0.148775),
    "jensen_shannon": (0.049301, -0.053079),
    "forward_chi2": (0.193992, -0.204303),
    "reverse_chi2": (0.233044, -0.260858),
}
GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "forward_kl": lambda t: -t.log(),
    "reverse_kl": lambda t: t * t.log(),
    "total_variation": lambda t: (1 - t).abs() / 2,
    "jensen_shannon": lambda t: t * (2 * t / (t + 1)).log() + (2 / (t + 1)).log(),
    "forward_chi2": lambda t: (t - 1).square() / t,
    "reverse_chi2": lambda t: (t - 1).square(),
}
each_divergence = pytest.mark.parametrize("name", KNOWN)


def row(*numbers: float) -> Tensor:
    """One group, float64."""
    return torch.tensor([numbers], dtype=torch.float64)


def _policy() -> TabularPolicy:
    return TabularPolicy(row(*LOGITS))


REFERENCE = row(0.1, 0.3, 0.2, 0.25, 0.15)
# Rewards whose tilted reference is the target; the constant becomes log Z.
LOG_PARTITION = 0.8
REWARD = BETA * ((row(*TARGET) / REFERENCE).log() + LOG_PARTITION)


def divergence(name: str, policy: TabularPolicy) -> Tensor:
    """``E_p[f(pi / p)]``."""
    target = row(*TARGET)
    return (target * GENERATOR[name](policy.log_probs().exp() / target)).sum()


def expected_gradient(
    name: str,
    policy: TabularPolicy,
    size: int = 1,
    reward: Tensor = REWARD,
    proposal: tuple[float, ...] | None = None,
    given: float | None = None,
    **arguments: object,
) -> Tensor:
    """Expected gradient over groups drawn from the policy (or a proposal), every group listed; Z given or estimated."""
    groups = torch.cartesian_prod(*[torch.arange(5)] * size).view(-1, size)
    drawn = (policy.log_probs().detach() if proposal is None else row(*proposal).log())[0][groups]
    if proposal is not None:
        arguments["old_policy"] = drawn
    if given is not None:
        arguments["log_partition"] = torch.full((len(groups),), given, dtype=torch.float64)
    record = GroupLogProbs(policy.log_probs()[0][groups], REFERENCE.log()[0][groups])
    loss = f_dpg(record, reward[0][groups], beta=BETA, divergence=name, **arguments)  # type: ignore[arg-type]
    return lab.gradient((drawn.sum(-1).exp() * loss).sum(), policy)


# The divergences.


def test_all_divergences_are_covered() -> None:
    assert set(KNOWN) == set(get_args(Divergence))


@each_divergence
def test_the_expected_gradient_is_that_of_the_divergence(name: str) -> None:
    policy, (value, slope) = _policy(), KNOWN[name]
    assert divergence(name, policy).item() == pytest.approx(value, abs=1e-6)
    found = expected_gradient(name, policy, given=LOG_PARTITION)
    assert found[0].item() == pytest.approx(slope, abs=1e-6)
    wanted = lab.finite_difference(lambda: divergence(name, policy), lab.parameters(policy))
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)


@each_divergence
def test_any_baseline_leaves_the_expected_gradient_alone(name: str) -> None:
    policy = _policy()
    found = expected_gradient(name, policy, given=LOG_PARTITION, baseline=-3.7)
    torch.testing.assert_close(found, expected_gradient(name, policy, given=LOG_PARTITION), atol=1e-12, rtol=0)
    one_a_group = expected_gradient(name, policy, given=LOG_PARTITION, baseline=torch.full((5,), -3.7))
    torch.testing.assert_close(one_a_group, found, atol=1e-6, rtol=0)


@each_divergence
def test_a_proposal_is_corrected_for_by_its_importance_ratio(name: str) -> None:
    policy = _policy()
    found = expected_gradient(name, policy, given=LOG_PARTITION, proposal=PROPOSAL)
    torch.testing.assert_close(found, expected_gradient(name, policy, given=LOG_PARTITION), atol=1e-12, rtol=0)


@each_divergence
def test_at_the_target_the_gradient_vanishes(name: str) -> None:
    policy = TabularPolicy(row(*TARGET).log())
    for size, given in ((1, LOG_PARTITION), (3, None)):
        # A total variation's slope is a sign: rounding decides it at the target, but only by +-1/2 on each.
        if name != "total_variation":
            found = expected_gradient(name, policy, size=size, given=given)
            torch.testing.assert_close(found, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    assert f_pseudo_reward(torch.zeros(1), "total_variation").item() == 0


@each_divergence
def test_a_pseudo_reward_is_minus_the_slope_of_its_generator(name: str) -> None:
    t = torch.tensor([0.05, 0.4, 0.9, 1.1, 2.5, 20.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(GENERATOR[name](t).sum(), t)
    torch.testing.assert_close(f_pseudo_reward(t.detach().log(), name), -slope)  # type: ignore[arg-type]


def test_the_jensen_shannon_of_this_name_is_twice_the_usual_one() -> None:
    policy = _policy()
    ours, target = policy.log_probs().exp(), row(*TARGET)
    middle = (ours + target) / 2
    usual = ((ours * (ours / middle).log()) + (target * (target / middle).log())).sum() / 2
    assert divergence("jensen_shannon", policy).item() == pytest.approx(2 * usual.item())


# The reverse KL is RLHF.


def test_the_reverse_kl_is_reinforce_with_a_kl_penalty() -> None:
    """Completion by completion: the reward is r / beta, the penalty 1, and log Z + 1 a baseline."""
    policy = row(*LOGITS).requires_grad_()
    record, values = GroupLogProbs(policy, REFERENCE.log()), REWARD
    given = torch.tensor([LOG_PARTITION], dtype=torch.float64)
    loss = f_dpg(record, values, BETA, "reverse_kl", given, baseline=-(LOG_PARTITION + 1))
    torch.testing.assert_close(loss, reinforce(record, values / BETA, beta=1.0), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_the_reverse_kl_follows_reward_minus_kl_even_where_z_is_estimated(size: int) -> None:
    policy, reference = _policy(), TabularPolicy(REFERENCE.log())
    objective = lab.expected_reward(policy, REWARD) / BETA - lab.reverse_kl(policy, reference)
    found = expected_gradient("reverse_kl", policy, size=size)
    torch.testing.assert_close(found, -lab.gradient(objective, policy), atol=1e-12, rtol=1e-12)


# The estimate of Z.


def test_the_estimate_of_z_is_unbiased_and_leaves_its_own_completion_out() -> None:
    policy = _policy()
    for proposal in (None, PROPOSAL):
        groups = torch.cartesian_prod(*[torch.arange(5)] * 3)
        table = policy.log_probs().detach() if proposal is None else row(*proposal).log()
        drawn = table[0][groups]
        record = GroupLogProbs(policy.log_probs()[0][groups], REFERENCE.log()[0][groups])
        found = log_partition_leave_one_out(record, REWARD[0][groups], BETA, None if proposal is None else drawn)
        mean = (drawn.sum(-1, keepdim=True).exp() * found.exp()).sum(0)
        assert not found.requires_grad
        torch.testing.assert_close(mean, torch.full((3,), LOG_PARTITION, dtype=torch.float64).exp())
        alone = found.view(5, 5, 5, 3)[:, :, :, 0]
        assert torch.equal(alone, alone[:1].expand(5, 5, 5))


@each_divergence
def test_with_z_estimated_a_constant_on_the_rewards_changes_nothing(name: str) -> None:
    """A target scaled by 7.3 is the same target; with a fixed Z it is not."""
    (logps, values), shift = _groups(), BETA * math.log(7.3)
    objective = partial(f_dpg, logps, beta=BETA, divergence=name)  # type: ignore[arg-type]
    torch.testing.assert_close(objective(values + shift), objective(values), atol=1e-12, rtol=1e-12)
    if name != "reverse_kl":  # There log Z is a baseline.
        moved = expected_gradient(name, _policy(), given=LOG_PARTITION, reward=REWARD + shift)
        assert (moved - expected_gradient(name, _policy(), given=LOG_PARTITION)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [2, 3])
def test_the_reverse_chi2_is_exact_although_z_is_estimated(size: int) -> None:
    """Its slope is linear in Z, whose estimate is unbiased and does not depend on the completion."""
    policy = _policy()
    found = expected_gradient("reverse_chi2", policy, size=size)
    exact = expected_gradient("reverse_chi2", policy, given=LOG_PARTITION)
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_the_forward_kl_with_z_estimated_has_the_right_direction(size: int) -> None:
    """A completion is independent of its own estimate, so that only a factor E[Z / Z_estimate] >= 1 is wrong."""
    policy = _policy()
    exact = expected_gradient("forward_kl", policy, given=LOG_PARTITION)
    factor = expected_gradient("forward_kl", policy, size=size) / exact
    assert factor[0].item() > 1
    torch.testing.assert_close(factor, factor[:1].expand(5))


@pytest.mark.parametrize("name", ["forward_kl", "jensen_shannon", "forward_chi2", "total_variation"])
def test_the_bias_of_estimating_z_falls_with_the_size_of_the_group(name: str) -> None:
    policy = _policy()
    exact = expected_gradient(name, policy, given=LOG_PARTITION)
    biases = [(expected_gradient(name, policy, size=size) - exact).norm().item() for size in (2, 5)]
    assert biases[1] < biases[0] / 2


# Contract.


def _groups() -> tuple[GroupLogProbs, Tensor]:
    policy = torch.tensor([[-3.0, -2.0, -4.0], [-1.0, -5.0, -2.5]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-2.5, -2.2, -4.4], [-1.5, -4.0, -2.0]], dtype=torch.float64)
    return GroupLogProbs(policy, reference), torch.tensor([[0.3, -0.2, 0.1], [1.0, 0.0, 0.4]], dtype=torch.float64)


@each_divergence
def test_the_gradient_is_minus_the_pseudo_reward(name: str) -> None:
    logps, values = _groups()
    given = torch.tensor([0.2, -0.1], dtype=torch.float64)
    loss = f_dpg(logps, values, BETA, name, given, baseline=0.4)  # type: ignore[arg-type]
    assert loss.shape == (2,)
    (slope,) = torch.autograd.grad(loss.sum(), logps.policy)
    t = (logps.log_ratio().detach() - values / BETA + given.unsqueeze(-1)).exp().requires_grad_()
    (derivative,) = torch.autograd.grad(GENERATOR[name](t).sum(), t)
    torch.testing.assert_close(slope, (derivative + 0.4) / 3)


@each_divergence
def test_the_order_of_the_completions_has_no_meaning(name: str) -> None:
    (logps, values), order = _groups(), torch.tensor([2, 0, 1])
    objective = partial(f_dpg, beta=BETA, divergence=name)  # type: ignore[arg-type]
    shuffled = objective(GroupLogProbs(logps.policy[:, order], logps.reference[:, order]), values[:, order])
    torch.testing.assert_close(shuffled, objective(logps, values), atol=1e-12, rtol=1e-12)


@each_divergence
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_far_from_the_target_the_gradient_is_finite(name: str, far: float) -> None:
    policy = torch.tensor([[far, -1.0]], requires_grad=True)
    loss = f_dpg(GroupLogProbs(policy, torch.zeros(1, 2)), torch.zeros(1, 2), BETA, name, torch.zeros(1))  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(loss.sum(), policy)
    assert slope.norm().isfinite()


def test_one_completion_cannot_estimate_z() -> None:
    record, values = GroupLogProbs(torch.zeros(2, 1), torch.zeros(2, 1)), torch.zeros(2, 1)
    with pytest.raises(ValueError, match="compares at least 2 completions of a prompt, got 1"):
        f_dpg(record, values)
    assert f_dpg(record, values, log_partition=torch.zeros(2)).shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "beta must be positive, got 0.0"),
        ({"divergence": "kl"}, "unknown divergence 'kl'; choose one of forward_kl, reverse_kl"),
        ({"log_partition": torch.zeros(2, 3)}, r"one number a group, shape \(2,\), got \(2, 3\)"),
        ({"baseline": torch.zeros(3)}, r"one number a group, shape \(2,\), got \(3,\)"),
        ({"old_policy": torch.zeros(2)}, r"when it was drawn, shape \(2, 3\), got \(2,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], message: str) -> None:
    logps, values = _groups()
    with pytest.raises(ValueError, match=message):
        f_dpg(logps, values, **arguments)  # type: ignore[arg-type]
