"""A-LoL on logged completions: its numbers, where it leads, and what its KL term does."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.objectives import GroupLogProbs, a_lol
from setsail.policies.tabular import TabularPolicy

POLICY, REFERENCE, REWARD = (0.2, -0.1, 0.4, 0.0), (0.4, -0.3, 0.0, 0.6), (1.0, -2.0, 0.5, 3.0)
BETA = 0.3


def row(*numbers: float) -> Tensor:
    """One group, float64."""
    return torch.tensor([numbers], dtype=torch.float64)


def _policy(logits: tuple[float, ...] = POLICY) -> TabularPolicy:
    return TabularPolicy(row(*logits))


def test_a_lol_weighs_the_summed_likelihood_by_the_ratio_of_the_whole_completion() -> None:
    policy, reference = torch.tensor([-0.5, -2.5]).sum().view(1, 1), torch.tensor([-1.0, -2.0]).sum().view(1, 1)
    assert a_lol(GroupLogProbs(policy, reference), torch.tensor([[0.5]])).item() == pytest.approx(1.5)


@pytest.mark.parametrize(("ratio", "weight"), [(0.01, 0.1), (0.5, 0.5), (1.5, 1.5), (50.0, 1.9)])
def test_a_lol_keeps_the_ratio_between_a_tenth_and_almost_two(ratio: float, weight: float) -> None:
    record = GroupLogProbs(row(-3.0), row(-3.0 - math.log(ratio)))
    assert a_lol(record, row(0.5)).item() == pytest.approx(0.5 * weight * 3)


def test_a_lol_without_ratio_leads_to_the_reference_weighted_by_the_advantage() -> None:
    reference, advantage = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64), row(1, -0.5, 0.25, 0.8)
    best = [0.7547, 0.0, 0.0943, 0.1509]
    policy = TabularPolicy(torch.tensor([best], dtype=torch.float64).clamp(min=1e-30).log())
    objective = partial(a_lol, importance_ratio=False)
    slope = _offline_gradient(objective, policy, reference, advantage)
    torch.testing.assert_close(slope, torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    exact = reference * advantage.clamp(min=0)
    assert (exact / exact.sum())[0].tolist() == pytest.approx(best, abs=5e-5)
    elsewhere = _offline_gradient(objective, TabularPolicy.uniform(1, 4), reference, advantage)
    assert elsewhere.abs().max() > 0.05


def _offline_gradient(
    objective: Callable[..., Tensor], policy: TabularPolicy, chances: Tensor, reward: Tensor
) -> Tensor:
    """Expected gradient over the reference's own completions, each a group of one."""
    record = GroupLogProbs(policy.log_probs().T, chances.log().T)
    return lab.gradient((chances[0] * objective(record, reward.T)).sum(), policy)


def test_unclipped_a_lol_follows_the_positive_advantage_and_the_other_variants_do_not() -> None:
    policy, chances, reward = _policy(), _policy(REFERENCE).log_probs().exp().detach(), row(*REWARD)
    wanted = -lab.gradient(lab.expected_reward(policy, (reward - 0.6).clamp(min=0)), policy)
    found = _offline_gradient(partial(a_lol, baseline=0.6, clip=None), policy, chances, reward)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    free = _offline_gradient(partial(a_lol, baseline=0.6, importance_ratio=False), policy, chances, reward)
    assert (free - wanted).abs().max() > 0.01


def test_at_the_reference_all_variants_without_kl_agree() -> None:
    variants = (a_lol, partial(a_lol, clip=None), partial(a_lol, importance_ratio=False))
    slopes = []
    for objective in variants:
        policy = row(-3, -5, -4).requires_grad_()
        loss = objective(GroupLogProbs(policy, policy.detach().clone()), row(0.5, -0.2, 1.5), baseline=0.1)
        slopes.append(torch.autograd.grad(loss.sum(), policy)[0])
    assert slopes[0][0].tolist() == pytest.approx([-0.4 / 3, 0.0, -1.4 / 3])
    assert torch.equal(slopes[0], slopes[1])
    assert torch.equal(slopes[0], slopes[2])


def test_the_kl_term_of_a_lol_drives_the_policy_away_from_its_reference() -> None:
    """Without any advantage, one small step along the expected gradient increases KL(pi_ref || pi)."""
    policy, reference = _policy(), _policy(REFERENCE).frozen()
    chances = reference.log_probs().exp()
    objective = partial(a_lol, importance_ratio=False, beta=BETA)
    slope = _offline_gradient(objective, policy, chances, torch.zeros_like(chances))
    before = lab.forward_kl(policy, reference).item()
    with torch.no_grad():
        policy.logits -= 0.01 * slope
    assert lab.forward_kl(policy, reference).item() > before
