"""Contrastive policy gradient on a bandit whose optimum is known, and what objectives of a contrast have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from bandit import chance, every_pair, groups_of_two, minimizer, numbers
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.objectives import GroupLogProbs, GroupObjective, copg, ipo, online_ipo
from setsail.policies.tabular import TabularPolicy

BETA = 0.5
REWARD = numbers(2.5, 2.0, 1.0)
REFERENCE = torch.full((3,), 1 / 3, dtype=torch.float64).log()
FIRST_LAW, SECOND_LAW = numbers(0.1, 0.2, 0.7), numbers(0.05, 0.05, 0.9)
OPTIMUM = (0.705385, 0.259496, 0.035119)


def _objective(policy: Tensor) -> float:
    """``E[R] - beta KL(pi || pi_ref)``."""
    return (policy.exp() * (REWARD - BETA * (policy - REFERENCE))).sum().item()


def _regret(policy: Tensor) -> float:
    return _objective((REFERENCE + REWARD / BETA).log_softmax(-1)) - _objective(policy)


def _fitted(objective: GroupObjective, first_law: Tensor = FIRST_LAW, second_law: Tensor = SECOND_LAW) -> Tensor:
    def risk(policy: Tensor) -> Tensor:
        loss = objective(groups_of_two(policy, REFERENCE), every_pair(REWARD))
        return (chance(first_law, second_law) * loss).sum()

    return minimizer(risk, 3)


def test_the_optimum_of_this_bandit_is_known() -> None:
    best = (REFERENCE + REWARD / BETA).log_softmax(-1)
    assert best.exp().tolist() == pytest.approx(OPTIMUM, abs=5e-7)
    assert _objective(best) == pytest.approx(2.125200, abs=5e-7)


@pytest.mark.parametrize(
    "laws",
    [
        (FIRST_LAW, SECOND_LAW),
        (numbers(0.3, 0.3, 0.4), numbers(0.98, 0.01, 0.01)),
        (numbers(*OPTIMUM), numbers(*OPTIMUM)),
    ],
    ids=["far from the optimum", "unequal", "at the optimum"],
)
def test_the_minimizer_is_the_optimal_policy_whoever_drew_the_completions(laws: tuple[Tensor, Tensor]) -> None:
    fitted = _fitted(partial(copg, beta=BETA), *laws)
    assert fitted.exp().tolist() == pytest.approx(OPTIMUM, abs=5e-7)
    assert abs(_regret(fitted)) < 1e-12


def test_the_whole_beta_inside_the_loss_would_double_the_temperature() -> None:
    fitted = _fitted(partial(copg, beta=2 * BETA))
    assert fitted.exp().tolist() == pytest.approx((REWARD / (2 * BETA)).softmax(-1).tolist(), abs=1e-9)
    assert _regret(fitted) == pytest.approx(0.0468, abs=5e-5)


def test_ipo_on_bradley_terry_labels_is_biased_on_the_same_pairs() -> None:
    p = lab.bradley_terry(REWARD.unsqueeze(0)).flatten()
    fitted = _fitted(lambda logps, values: ipo(logps.pair(), p, beta=BETA))
    assert fitted.exp().tolist() == pytest.approx((0.424169, 0.352706, 0.223125), abs=5e-7)
    assert _regret(fitted) == pytest.approx(0.153, abs=5e-4)


def _stationary(baseline: Callable[[Tensor], Tensor]) -> Tensor:
    """Where a policy gradient on the same completions, one at a time, comes to rest."""
    policy = TabularPolicy.uniform(prompts=1, responses=3)

    def direction() -> Tensor:
        table = policy.log_probs()[0]
        advantage = (REWARD - BETA * (table - REFERENCE) - baseline(table)).detach()
        return lab.gradient(-((FIRST_LAW + SECOND_LAW) * advantage * table).sum(), policy)

    assert lab.train_exact(policy, direction, rate=0.5, tolerance=1e-9).residual <= 1e-9
    return policy.log_probs().detach()[0]


@pytest.mark.parametrize(
    ("baseline", "wanted", "regret"),
    [
        (lambda table: torch.zeros(()), (0.193990, 0.250139, 0.555871), 0.638),
        (lambda table: (table.exp() * REWARD).sum(), (0.811548, 0.167525, 0.020927), 0.0148),
        (lambda table: (table.exp() * (REWARD - BETA * (table - REFERENCE))).sum(), OPTIMUM, 0.0),
    ],
    ids=["none", "mean reward", "mean regularized reward"],
)
def test_a_policy_gradient_off_policy_depends_on_its_baseline(
    baseline: Callable[[Tensor], Tensor], wanted: tuple[float, ...], regret: float
) -> None:
    """Which is what the contrast is for: the second completion is a baseline that is always right."""
    found = _stationary(baseline)
    assert found.exp().tolist() == pytest.approx(wanted, abs=2e-6)
    assert _regret(found) == pytest.approx(regret, abs=5e-4 if regret > 0.1 else 5e-5)


def test_value_and_slope_of_one_pair() -> None:
    policy = torch.tensor([[0.4, -0.3]], dtype=torch.float64, requires_grad=True)
    loss = copg(GroupLogProbs(policy, torch.zeros(1, 2, dtype=torch.float64)), numbers(1.0, 0.2)[None], beta=BETA)
    assert loss.item() == pytest.approx(-0.4375, abs=1e-12)
    (slope,) = torch.autograd.grad(loss, policy)
    assert slope[0].tolist() == pytest.approx([-0.45, 0.45], abs=1e-12)


def test_on_policy_the_expected_gradient_is_twice_that_of_the_rlhf_objective() -> None:
    policy = TabularPolicy(torch.tensor([[0.3, -0.8, 0.5]]))
    reference = TabularPolicy(torch.tensor([[0.0, 0.4, -0.2]])).frozen()
    logps = groups_of_two(policy.log_probs()[0], reference.log_probs()[0])
    law = policy.log_probs().detach()[0].exp()
    found = lab.gradient((chance(law, law) * copg(logps, every_pair(REWARD), beta=BETA)).sum(), policy)

    def rlhf() -> Tensor:
        return lab.expected_reward(policy, REWARD[None]) - BETA * lab.reverse_kl(policy, reference)

    wanted = -2 * lab.finite_difference(rlhf, lab.parameters(policy))
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


# Objectives of a contrast: of the log-ratio difference and the difference of the values.

CONTRASTS: dict[str, GroupObjective] = {"copg": partial(copg, beta=0.3), "online-ipo": partial(online_ipo, beta=0.3)}
each_contrast = pytest.mark.parametrize("name", CONTRASTS)


def _record(groups: int = 6, requires_grad: bool = False) -> tuple[GroupLogProbs, Tensor]:
    drawn = torch.from_numpy(stream(0, "contrasts").normal(size=(2, groups, 2))) * 4 - 20
    values = torch.from_numpy(stream(0, "values").random((groups, 2)))
    return GroupLogProbs(drawn[0].clone().requires_grad_(requires_grad), drawn[1]), values


def test_contrasts_are_equal_up_to_scale_and_a_term_without_gradient() -> None:
    logps, values = _record()
    constant = (values[:, 0] - values[:, 1]).square() / (2 * 0.3)
    found = copg(logps, values, beta=0.3)
    torch.testing.assert_close(found, 0.3 / 2 * online_ipo(logps, values, beta=0.3) - constant, atol=1e-10, rtol=0)


def test_rewards_of_a_quarter_make_the_contrastive_policy_gradient_ipo() -> None:
    logps, _ = _record(requires_grad=True)
    values = torch.tensor([[0.25, -0.25]], dtype=torch.float64).expand(6, 2)
    (found,) = torch.autograd.grad(copg(logps, values, beta=0.3).sum(), logps.policy)
    (wanted,) = torch.autograd.grad(0.3 / 2 * ipo(logps.pair(), beta=0.3).sum(), logps.policy)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


@each_contrast
def test_one_loss_a_group(name: str) -> None:
    loss = CONTRASTS[name](*_record())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float64


@each_contrast
def test_swapping_two_completions_with_their_values_changes_nothing(name: str) -> None:
    logps, values = _record()
    swapped = GroupLogProbs(logps.policy.flip(-1), logps.reference.flip(-1))
    torch.testing.assert_close(CONTRASTS[name](swapped, values.flip(-1)), CONTRASTS[name](logps, values))
    assert not torch.allclose(CONTRASTS[name](swapped, values), CONTRASTS[name](logps, values))


@each_contrast
@pytest.mark.parametrize("part", ["policy", "reference"])
def test_a_constant_on_both_log_probs_of_a_group_changes_nothing(name: str, part: str) -> None:
    logps, values = _record()
    shift = torch.arange(6, dtype=torch.float64).unsqueeze(-1)
    shifted = replace(logps, **{part: getattr(logps, part) + shift})
    torch.testing.assert_close(CONTRASTS[name](shifted, values), CONTRASTS[name](logps, values), atol=1e-10, rtol=0)


@each_contrast
def test_policy_and_reference_of_a_completion_enter_as_a_ratio(name: str) -> None:
    logps, values = _record()
    shift = numbers(2.0, -1.0)
    shifted = GroupLogProbs(logps.policy + shift, logps.reference + shift)
    torch.testing.assert_close(CONTRASTS[name](shifted, values), CONTRASTS[name](logps, values), atol=1e-10, rtol=0)


@each_contrast
@pytest.mark.parametrize("completion", [0, 1])
def test_the_gradient_in_a_log_prob_is_that_of_finite_differences(name: str, completion: int) -> None:
    logps, values = _record(requires_grad=True)
    (found,) = torch.autograd.grad(CONTRASTS[name](logps, values).sum(), logps.policy)
    step = torch.zeros(2, dtype=torch.float64)
    step[completion] = 1e-6
    above, below = (
        CONTRASTS[name](replace(logps, policy=(logps.policy + sign * step).detach()), values) for sign in (1, -1)
    )
    torch.testing.assert_close(found[:, completion], (above - below) / 2e-6, atol=1e-6, rtol=1e-6)


@each_contrast
@pytest.mark.parametrize("count", [1, 3])
def test_a_contrast_is_between_exactly_two(name: str, count: int) -> None:
    logps = GroupLogProbs(torch.zeros(4, count), torch.zeros(4, count))
    with pytest.raises(ValueError, match=rf"two completions of a prompt, got {count}|at least 2 .*, got {count}"):
        CONTRASTS[name](logps, torch.zeros(4, count))


@each_contrast
def test_values_that_do_not_fit_are_refused(name: str) -> None:
    logps, values = _record()
    with pytest.raises(ValueError, match=r"one number a completion, shape \(6, 2\)"):
        CONTRASTS[name](logps, values[:, 0])
    with pytest.raises(ValueError, match="values must be finite numbers"):
        CONTRASTS[name](logps, values * float("nan"))


@pytest.mark.parametrize("objective", [copg, online_ipo])
@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan")])
def test_a_contrast_needs_a_positive_beta(objective: Callable[..., Tensor], beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got"):
        objective(*_record(), beta=beta)
