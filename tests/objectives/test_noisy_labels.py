"""rDPO: the flips average out, for every policy, and what it is not (conservative DPO, the worst case)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail.objectives import LogProbs, dpo, robust_dpo

BETA = 0.3
U = (-8.0, -0.7, 0.0, 0.4, 3.0, 25.0)
each_rate = pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.49])


def _record(*margins: float) -> LogProbs:
    policy = (torch.tensor(margins, dtype=torch.float64) / BETA).requires_grad_()
    zero = torch.zeros_like(policy).detach()
    return LogProbs(policy, zero, zero, zero)


def _slope(loss: Tensor, logps: LogProbs) -> Tensor:
    """The gradient in the margin u, one number a pair."""
    (slope,) = torch.autograd.grad(loss.sum(), logps.policy_first)
    return slope / BETA


def _labels(p: float, like: LogProbs) -> Tensor:
    return torch.full_like(like.policy_first, p).detach()


@each_rate
@pytest.mark.parametrize("p", [1.0, 0.0, 0.7])
def test_averaged_over_flips_it_is_dpo_on_the_clean_label(rate: float, p: float) -> None:
    logps = _record(*U)
    clean, observed = _labels(p, logps), _labels((1 - rate) * p + rate * (1 - p), logps)
    found = robust_dpo(logps, observed, BETA, label_smoothing=rate)
    torch.testing.assert_close(found, dpo(logps, clean, BETA), atol=1e-12, rtol=1e-10)


@each_rate
def test_its_pull_exceeds_that_of_conservative_dpo_by_a_constant(rate: float) -> None:
    """``sigmoid(-u) + eps / (1 - 2 eps)`` against ``sigmoid(-u) - eps``."""
    logps = _record(*U)
    corrected = _slope(robust_dpo(logps, None, BETA, label_smoothing=rate), logps)
    conservative = _slope(dpo(logps, None, BETA, label_smoothing=rate), logps)
    gap = 2 * rate * (1 - rate) / (1 - 2 * rate)
    torch.testing.assert_close(conservative - corrected, torch.full_like(corrected, gap), atol=1e-12, rtol=0)
    wanted = torch.sigmoid(-torch.tensor(U, dtype=torch.float64)) + rate / (1 - 2 * rate)
    torch.testing.assert_close(-corrected, wanted, atol=1e-12, rtol=0)


@each_rate
def test_on_flipped_labels_it_rests_at_the_clean_preference_and_dpo_at_the_flipped_one(rate: float) -> None:
    clean = 0.8
    observed = (1 - rate) * clean + rate * (1 - clean)
    at_clean, at_observed = (_record(math.log(p / (1 - p))) for p in (clean, observed))
    corrected = _slope(robust_dpo(at_clean, _labels(observed, at_clean), BETA, label_smoothing=rate), at_clean)
    assert corrected.item() == pytest.approx(0, abs=1e-12)
    assert _slope(dpo(at_observed, _labels(observed, at_observed), BETA), at_observed).item() == pytest.approx(
        0, abs=1e-12
    )


def test_without_flips_it_is_dpo() -> None:
    logps = _record(*U)
    p = torch.linspace(0, 1, len(U), dtype=torch.float64)
    assert torch.equal(robust_dpo(logps, p, BETA, label_smoothing=0.0), dpo(logps, p, BETA))


def test_it_has_no_lower_bound() -> None:
    """At a rate of 0.1 each further unit of margin gains 0.1 / 0.8."""
    low, lower = robust_dpo(_record(200.0, 1000.0), None, BETA, label_smoothing=0.1).tolist()
    assert lower - low == pytest.approx(-800 / 8)


def test_the_restated_formula() -> None:
    for u in U:
        plain, flipped = math.log1p(math.exp(-u)), math.log1p(math.exp(u))
        wanted = (0.8 * plain - 0.2 * flipped) / 0.6
        assert robust_dpo(_record(u), None, BETA, label_smoothing=0.2).item() == pytest.approx(wanted, rel=1e-12)
