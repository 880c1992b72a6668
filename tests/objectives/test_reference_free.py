"""SimPO, CPO, ORPO, ASFT, SLiC-HF: their values, what ties them together, and likelihoods at both ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from setsail.objectives import LogProbs, PairwiseObjective, asft, cpo, dpo, orpo, simpo, slic_hf

ODDS: list[PairwiseObjective] = [orpo, asft]


def _record(
    first: float, second: float, lengths: tuple[int, int] = (1, 1), dtype: torch.dtype = torch.float64
) -> LogProbs:
    """One pair with gradient; a reference that would be noticed."""
    policy = [torch.tensor([value], dtype=dtype).requires_grad_() for value in (first, second)]
    reference = [torch.tensor([value], dtype=dtype) for value in (-3.0, -77.0)]
    return LogProbs(*policy, *reference, torch.tensor(lengths[:1]), torch.tensor(lengths[1:]))


def _slopes(loss: Tensor, logps: LogProbs) -> list[float]:
    slopes = torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second))
    return [slope.item() for slope in slopes]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# SimPO.


def test_simpo_is_log_2_where_the_gap_is_gamma_over_beta() -> None:
    """Mean log-probs -1 and -1.2: a gap of 0.2 = 0.5 / 2.5."""
    assert simpo(_record(-6.0, -12.0, (6, 10)), beta=2.5, gamma=0.5).item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.6), (2.5, 0.25), (10.0, 5.0)])
def test_simpos_gamma_is_in_the_units_of_the_logit(beta: float, gamma: float) -> None:
    gap = -14.0 / 7 - -9.0 / 3
    wanted = math.log1p(math.exp(-(beta * gap - gamma)))
    assert simpo(_record(-14.0, -9.0, (7, 3)), beta=beta, gamma=gamma).item() == pytest.approx(wanted, rel=1e-12)


def test_simpo_pulls_on_a_completion_by_one_over_its_length() -> None:
    logps = _record(-14.0, -9.0, (7, 3))
    weight = 2.5 * _sigmoid(0.5 - 2.5)
    assert _slopes(simpo(logps), logps) == pytest.approx([-weight / 7, weight / 3])


def test_simpos_margin_is_asked_of_whichever_is_preferred() -> None:
    """Both hard labels lose: at no gap each costs softplus(gamma)."""
    for p in (None, torch.zeros(1, dtype=torch.float64)):
        assert simpo(_record(-6.0, -6.0), p).item() == pytest.approx(math.log1p(math.exp(0.5)))


# CPO.


def test_cpo_is_dpo_with_a_uniform_reference() -> None:
    logps = _record(-6.0, -9.5)
    uniform = LogProbs(logps.policy_first, logps.policy_second, torch.zeros(1).double(), torch.zeros(1).double())
    p = torch.tensor([0.8], dtype=torch.float64)
    assert torch.equal(cpo(logps, p, 0.3), dpo(uniform, p, 0.3))


# ORPO and ASFT.


def _likely(first: float, second: float, lengths: tuple[int, int] = (1, 1)) -> LogProbs:
    """Mean likelihoods of the two completions."""
    return _record(lengths[0] * math.log(first), lengths[1] * math.log(second), lengths)


def test_the_values_at_likelihoods_of_06_and_03() -> None:
    weight, nll = 0.5, -math.log(0.6)
    bracket = asft(_likely(0.6, 0.3)).item()
    assert bracket == pytest.approx(0.867501, abs=1e-6)
    assert nll + asft(_likely(0.6, 0.3), beta=weight).item() == pytest.approx(0.944576, abs=1e-6)
    assert nll + orpo(_likely(0.6, 0.3), beta=weight).item() == pytest.approx(0.636483, abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0.6, 0.3), (0.3, 0.6), (0.999, 0.001), (1e-4, 0.5)])
@pytest.mark.parametrize("weight", [0.1, 0.5, 2.0])
def test_orpo_is_asft_and_the_log_of_the_chance_to_differ(first: float, second: float, weight: float) -> None:
    offset = weight * math.log(first * (1 - second) + second * (1 - first))
    found = orpo(_likely(first, second), beta=weight).item()
    assert found == pytest.approx(asft(_likely(first, second), beta=weight).item() + offset, abs=1e-9)
    assert offset < 0


@pytest.mark.parametrize(("first", "second"), [(0.6, 0.3), (0.02, 0.97)])
def test_asft_is_a_binary_cross_entropy(first: float, second: float) -> None:
    wanted = -math.log(first) - math.log(1 - second)
    assert asft(_likely(first, second)).item() == pytest.approx(wanted, rel=1e-12)


def test_tempered_asft_scales_the_odds() -> None:
    first, second = (0.5 * math.log(q / (1 - q)) for q in (0.6, 0.3))
    wanted = -2 * math.log(_sigmoid(first)) - 2 * math.log(_sigmoid(-second))
    assert asft(_likely(0.6, 0.3), beta=2.0, odds_scale=0.5).item() == pytest.approx(wanted, rel=1e-12)


def test_the_gradients_of_both_terms() -> None:
    logps = _likely(0.6, 0.3, (4, 5))
    assert _slopes(asft(logps), logps) == pytest.approx([-1 / 4, 0.3 / 0.7 / 5])
    weight = 0.1 * _sigmoid(math.log(0.3 / 0.7) - math.log(0.6 / 0.4))
    assert _slopes(orpo(logps), logps) == pytest.approx([-weight / (4 * 0.4), weight / (5 * 0.7)])


@pytest.mark.parametrize("objective", ODDS)
def test_twice_as_many_tokens_of_the_same_likelihood_change_nothing(objective: PairwiseObjective) -> None:
    once, twice = (objective(_record(n * -3.5, n * -9.0, (n * 5, n * 7)), None).item() for n in (1, 2))
    assert twice == pytest.approx(once, rel=1e-12)


@pytest.mark.parametrize("objective", ODDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("first", "second"),
    [(-2400.0, -2600.0), (-2600.0, -1e-6), (0.0, 0.0), (0.0, -2400.0), (-1e-9, -0.1), (-2e5, -2e5)],
)
def test_likelihoods_at_both_ends_are_finite(
    objective: Callable[..., Tensor], dtype: torch.dtype, first: float, second: float
) -> None:
    """A 200-token completion whose likelihood underflows, and one whose every token is certain."""
    logps = _record(first, second, (200, 200), dtype)
    loss = objective(logps, torch.tensor([0.4], dtype=dtype))
    assert math.isfinite(loss.item())
    assert all(math.isfinite(slope) for slope in _slopes(loss, logps))


@pytest.mark.parametrize("mean", [-1e-6, -0.3, -math.log(2), -0.7, -5.0, -40.0])
def test_the_rejected_term_loses_no_digits_in_float32(mean: float) -> None:
    """``-log(1 - q)`` and its slope ``q / (1 - q)``; a plain 1 - q has one digit left of the first."""
    logps = _record(-1e-3, mean, dtype=torch.float32)
    loss = asft(logps)
    exact = 1e-3 - (math.log(-math.expm1(mean)) if mean > -1 else math.log1p(-math.exp(mean)))
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert _slopes(loss, logps)[1] == pytest.approx(math.exp(mean) / -math.expm1(mean), rel=2e-5, abs=0)


# SLiC-HF.


@pytest.mark.parametrize(("gap", "value", "slope"), [(0.2, 0.8, -1), (0.99, 0.01, -1), (1.01, 0.0, 0), (3.0, 0.0, 0)])
def test_slic_hf_is_a_hinge_on_the_policys_log_probs(gap: float, value: float, slope: float) -> None:
    logps = _record(-5.0 + gap, -5.0)
    loss = slic_hf(logps)
    assert loss.item() == pytest.approx(value, abs=1e-12)
    assert _slopes(loss, logps) == [slope, -slope]


def test_slic_hf_at_its_margin_costs_nothing() -> None:
    assert slic_hf(_record(-4.0, -5.0)).item() == 0.0
    assert slic_hf(_record(-4.0, -5.0), beta=0.5, delta=2.0).item() == 1.5
