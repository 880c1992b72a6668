"""EXO and DiscoPOP: the curves, their slopes, and what happens far from the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail.objectives import LogProbs, discopop, dpo, exo_pair

BETA = 0.3
U = [-4.0, -0.5, 0.0, 0.9, 6.0]


def _record(*margins: float, dtype: torch.dtype = torch.float64) -> LogProbs:
    """Pairs whose margins ``u = BETA * d`` are these, with gradient."""
    policy = (torch.tensor(margins, dtype=dtype) / BETA).requires_grad_()
    zero = torch.zeros_like(policy).detach()
    return LogProbs(policy, zero, zero, zero)


def _slope(loss: Tensor, logps: LogProbs) -> float:
    (slope,) = torch.autograd.grad(loss.sum(), logps.policy_first)
    return slope.item() / BETA


def _label(p: float) -> Tensor:
    return torch.tensor([p], dtype=torch.float64)


def _kl(first: tuple[float, float], second: tuple[float, float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


def _chances(u: float) -> tuple[float, float]:
    return 1 / (1 + math.exp(-u)), 1 / (1 + math.exp(u))


@pytest.mark.parametrize("u", U)
@pytest.mark.parametrize("eps", [1e-3, 0.2])
def test_exo_is_the_reverse_kl_to_the_smoothed_label_and_dpo_the_forward(u: float, eps: float) -> None:
    label = (1 - eps, eps)
    found = exo_pair(_record(u), None, BETA, label_smoothing=eps).item()
    assert found == pytest.approx(_kl(_chances(u), label), rel=1e-12, abs=1e-12)
    entropy = -sum(share * math.log(share) for share in label)
    forward = dpo(_record(u), None, BETA, label_smoothing=eps).item() - entropy
    assert forward == pytest.approx(_kl(label, _chances(u)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_exo_rests_at_a_finite_margin(p: float) -> None:
    at_rest = _record((2 * p - 1) * math.log(0.99 / 0.01))
    assert _slope(exo_pair(at_rest, _label(p), BETA, label_smoothing=0.01), at_rest) == pytest.approx(0, abs=1e-12)


def test_exos_margin_at_the_default_smoothing_is_69() -> None:
    assert math.log(0.999 / 0.001) == pytest.approx(6.9, abs=0.01)
    logps = _record(math.log(999))
    assert exo_pair(logps, None, BETA).item() == pytest.approx(0, abs=1e-12)


def test_exo_hardly_pulls_on_a_pair_that_is_ranked_wrong_with_confidence() -> None:
    for u, slope in ((-1.0, -1.554), (-12.0, -1.16e-4)):
        logps = _record(u)
        assert _slope(exo_pair(logps, None, BETA), logps) == pytest.approx(slope, rel=2e-3)
        assert _slope(dpo(logps, None, BETA), logps) < -0.7


@pytest.mark.parametrize("u", U)
@pytest.mark.parametrize("tau", [0.05, 1.0, 3.0])
def test_discopop_blends_the_logistic_with_the_exponential(u: float, tau: float) -> None:
    weight, _ = _chances(u / tau)
    wanted = (1 - weight) * math.log1p(math.exp(-u)) + weight * math.exp(-u)
    assert discopop(_record(u), None, BETA, tau).item() == pytest.approx(wanted, rel=1e-12)


def test_discopop_is_logistic_before_the_reference_and_exponential_beyond() -> None:
    assert discopop(_record(-2.0), None, BETA).item() == pytest.approx(math.log1p(math.exp(2)), rel=1e-9)
    assert discopop(_record(2.0), None, BETA).item() == pytest.approx(math.exp(-2), rel=1e-9)


def test_discopop_rises_with_the_margin_around_the_reference() -> None:
    for u, sign in ((-0.4, -1), (0.0, 1), (0.4, -1)):
        logps = _record(u)
        assert math.copysign(1, _slope(discopop(logps, None, BETA), logps)) == sign


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_two_parts_of_discopop_never_meet_as_zero_times_infinity(dtype: torch.dtype) -> None:
    logps = _record(-3000.0, 3000.0, dtype=dtype)
    loss = discopop(logps, None, BETA)
    assert loss.tolist() == pytest.approx([3000.0, 0.0])
    (slope,) = torch.autograd.grad(loss.sum(), logps.policy_first)
    assert slope.tolist() == pytest.approx([-BETA, 0.0])
