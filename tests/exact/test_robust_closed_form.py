"""Acceptance test 26: robustness to label errors in closed form (arXiv 2602.20457)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.lab import TabularWorld
from setsail.objectives import LogProbs, dpo, robust
from setsail.policies.tabular import EnumerablePolicy

OBJECTIVE = partial(dpo, beta=1.0)
MARGINS = torch.linspace(-4, 4, 17, dtype=torch.float64)


def _at(margins: Tensor) -> LogProbs:
    zero = torch.zeros_like(margins)
    return LogProbs(margins, zero, zero, zero)


@pytest.mark.parametrize("radius", [0.05, 0.2])
def test_acceptance_26_in_the_interior_the_worst_case_adds_radius_times_the_margin(radius: float) -> None:
    p = torch.full_like(MARGINS, 0.6)
    wanted = OBJECTIVE(_at(MARGINS), p) + radius * MARGINS.abs()
    torch.testing.assert_close(robust(OBJECTIVE, radius)(_at(MARGINS), p), wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("radius", [0.05, 0.2])
def test_acceptance_26_at_a_hard_label_only_a_confident_margin_costs(radius: float) -> None:
    wanted = OBJECTIVE(_at(MARGINS), None) + radius * MARGINS.clamp(min=0)
    torch.testing.assert_close(robust(OBJECTIVE, radius)(_at(MARGINS), None), wanted, atol=1e-9, rtol=0)


def test_acceptance_26_radius_0_is_the_plain_loss() -> None:
    assert robust(OBJECTIVE, 0.0) is OBJECTIVE


def test_acceptance_26_reference_value() -> None:
    u, p = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    assert robust(OBJECTIVE, 0.1)(_at(u), p).item() == pytest.approx(0.7531860489, abs=1e-10)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_acceptance_26_the_robust_objective_is_the_objective_plus_the_mean_margin(
    world: tuple[EnumerablePolicy, TabularWorld], beta: float
) -> None:
    """L_rob = L + radius E|u|, for preferences at least one radius away from certainty."""
    policy, tabular = world
    pairs = lab.policy_pairs(policy, tabular.preference)
    objective = partial(dpo, beta=beta)
    worst = lab.risk(policy, tabular.reference, pairs, robust(objective, 0.01))
    u = beta * pairs.log_probs(policy, tabular.reference).log_ratio_difference()
    plain = lab.risk(policy, tabular.reference, pairs, objective)
    assert worst.item() == pytest.approx((plain + 0.01 * (pairs.weight * u.abs()).sum()).item(), abs=1e-12)
