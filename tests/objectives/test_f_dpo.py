"""f-DPO: its known optima on four responses, its limits, and that no ratio is ever formed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from bandit import every_pair, minimizer, numbers
from torch import Tensor

from setsail.objectives import LogProbs, dpo, f_dpo
from setsail.objectives.divergences import LINKS

REWARD, REFERENCE, BETA = (1.0, 0.2, -0.5, 0.4), (0.4, 0.3, 0.2, 0.1), 0.7

# Of arXiv 2309.16240: f'(pi / ref) = (reward - lambda) / beta, lambda from normalization. To six digits.
OPTIMA = {
    ("reverse_kl", 0.5): (0.712285, 0.170364, 0.041782, 0.075569),
    ("forward_kl", 0.5): (0.683722, 0.173622, 0.073317, 0.069340),
    ("jensen_shannon", 0.5): (0.858452, 0.083407, 0.017398, 0.040743),
    ("alpha", 0.3): (0.704529, 0.169570, 0.053331, 0.072571),
    ("alpha", 0.5): (0.698837, 0.170112, 0.059853, 0.071198),
    ("alpha", 0.7): (0.692884, 0.171231, 0.065662, 0.070224),
}
each_optimum = pytest.mark.parametrize(("divergence", "alpha"), OPTIMA)


def _ratio(divergence: str, alpha: float) -> Callable[[float], float]:
    """The inverse of the link in closed form: t as a function of f'(t), the form of the link with f'(1) = 0 or -1."""
    return {
        "reverse_kl": math.exp,
        "forward_kl": lambda slope: -1 / slope,
        "jensen_shannon": lambda slope: math.exp(slope) / (2 - math.exp(slope)),
        "alpha": lambda slope: (1 - alpha * slope) ** (-1 / alpha),
    }[divergence]


def _largest_slope(divergence: str, alpha: float) -> float:
    bounds = {"reverse_kl": 50.0, "forward_kl": 0.0, "jensen_shannon": math.log(2), "alpha": 1 / alpha}
    return bounds[divergence]


def _optimum(divergence: str, alpha: float) -> list[float]:
    """The maximizer of ``E[reward] - beta D_f(pi || ref)``, by bisection on the multiplier of the normalization."""
    ratio = _ratio(divergence, alpha)

    def policy(multiplier: float) -> list[float]:
        pairs = zip(REWARD, REFERENCE, strict=True)
        return [share * ratio((reward - multiplier) / BETA) for reward, share in pairs]

    low = max(REWARD) - BETA * _largest_slope(divergence, alpha) + 1e-12
    high = low + 100
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(policy(middle)) > 1 else (low, middle)
    return policy(high)


def _pairs(policy: Tensor) -> LogProbs:
    """Every ordered pair of responses under a policy given as log-probs."""
    first, second = every_pair(policy).unbind(-1)
    return LogProbs(first, second, *every_pair(numbers(*REFERENCE).log()).unbind(-1))


def _labels() -> Tensor:
    first, second = every_pair(numbers(*REWARD)).unbind(-1)
    return torch.sigmoid(first - second)


@each_optimum
def test_the_optimum_is_the_tabulated_one(divergence: str, alpha: float) -> None:
    assert _optimum(divergence, alpha) == pytest.approx(OPTIMA[divergence, alpha], abs=1e-6)


@each_optimum
def test_the_loss_is_at_rest_at_the_optimum_pair_by_pair(divergence: str, alpha: float) -> None:
    policy = numbers(*_optimum(divergence, alpha)).log().requires_grad_()
    logps = _pairs(policy)
    loss = f_dpo(logps, _labels(), BETA, divergence, alpha)  # type: ignore[arg-type]
    for slope in torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second)):
        assert slope.abs().max().item() < 1e-12


@each_optimum
def test_training_on_all_pairs_lands_at_the_optimum(divergence: str, alpha: float) -> None:
    def loss(policy: Tensor) -> Tensor:
        return f_dpo(_pairs(policy), _labels(), BETA, divergence, alpha).mean()  # type: ignore[arg-type]

    assert minimizer(loss, 4).exp().tolist() == pytest.approx(OPTIMA[divergence, alpha], abs=1e-6)


def _record(*log_ratios: float, dtype: torch.dtype = torch.float64) -> LogProbs:
    """Pairs of consecutive log-ratios against a reference of -20 nats."""
    values = torch.tensor(log_ratios, dtype=dtype).view(-1, 2) - 20
    reference = torch.full_like(values[:, 0], -20)
    return LogProbs(values[:, 0], values[:, 1], reference, reference)


def test_reverse_kl_is_dpo_to_the_last_bit() -> None:
    logps, p = _record(1.3, -0.4, 7.0, 9.1, -3.3, 2.2), numbers(0.1, 1.0, 0.6)
    assert torch.equal(f_dpo(logps, p, 0.3), dpo(logps, p, 0.3))


def test_alpha_leads_from_reverse_to_forward() -> None:
    logps = _record(1.3, -0.4, 2.0, 3.1, -1.3, 2.2)
    for alpha, limit in ((1e-9, "reverse_kl"), (1 - 1e-9, "forward_kl")):
        wanted = f_dpo(logps, divergence=limit)  # type: ignore[arg-type]
        torch.testing.assert_close(f_dpo(logps, divergence="alpha", alpha=alpha), wanted, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("alpha", "value"), [(0.3, -2.842785), (0.7, -0.985344), (0.5, -1.533930)])
def test_alpha_is_the_papers_and_not_one_minus_it(alpha: float, value: float) -> None:
    """``-u^-alpha / alpha`` at u = 1.7; a reader of the other convention gets 0.3 and 0.7 the wrong way round."""
    found = LINKS["alpha"](numbers(math.log(1.7)), alpha).item() - 1 / alpha
    assert found == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("t", [0.05, 0.7, 1.0, 3.0])
@pytest.mark.parametrize(("divergence", "alpha"), [key for key in OPTIMA if key[0] != "reverse_kl"])
def test_a_link_inverts_to_the_ratio(divergence: str, alpha: float, t: float) -> None:
    slope = LINKS[divergence](numbers(math.log(t)), alpha).item()
    constant = math.log(2) if divergence == "jensen_shannon" else 0.0
    assert _ratio(divergence, alpha)(slope + constant) == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize(("divergence", "alpha"), [key for key in OPTIMA if key[0] != "reverse_kl"])
def test_a_small_ratio_weighs_a_pair_as_its_divergence_says(divergence: str, alpha: float) -> None:
    """``t f''(t)``, the weight of a completion's score: 1/t, 1/(1 + t), t^-alpha."""
    log_ratio = numbers(-2.0, 0.0, 1.5).requires_grad_()
    (slope,) = torch.autograd.grad(LINKS[divergence](log_ratio, alpha).sum(), log_ratio)
    t = log_ratio.detach().exp()
    wanted = {"forward_kl": 1 / t, "jensen_shannon": 1 / (1 + t), "alpha": t**-alpha}[divergence]
    torch.testing.assert_close(slope, wanted, atol=0, rtol=1e-12)


@pytest.mark.parametrize("divergence", ["forward_kl", "alpha"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_ratios_that_no_float_holds_stay_finite(divergence: str, dtype: torch.dtype) -> None:
    record = _record(-5000.0, 0.0, 0.0, -5000.0, 5000.0, -5000.0, dtype=dtype)
    policy = [part.clone().requires_grad_() for part in (record.policy_first, record.policy_second)]
    loss = f_dpo(
        LogProbs(*policy, record.reference_first, record.reference_second),
        torch.tensor([0.3, 0.3, 1.0], dtype=dtype),
        divergence=divergence,  # type: ignore[arg-type]
    )
    assert bool(loss.isfinite().all())
    assert all(bool(slope.square().isfinite().all()) for slope in torch.autograd.grad(loss.sum(), policy))
