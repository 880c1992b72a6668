"""Rates of convergence: sequences made to order are recognized, with standard errors that cover."""

from __future__ import annotations

import math

import pytest
import torch

from setsail import lab
from setsail.core import stream
from setsail.lab.rates import Rate, fit_rate


def test_a_geometric_sequence_is_linear() -> None:
    rate = fit_rate([0.3 * 0.7**t for t in range(40)])
    assert (rate.kind, rate.is_linear, rate.is_quadratic) == ("linear", True, False)
    assert rate.factor == pytest.approx(0.7, abs=1e-12)
    assert rate.slope == pytest.approx(math.log(0.7), abs=1e-12)
    assert rate.order == pytest.approx(1, abs=1e-9)
    assert rate.slope_error < 1e-12
    assert str(rate).startswith("linear: e_t ~ 0.7^t")


@pytest.mark.parametrize(("start", "constant"), [(0.1, 1.0), (0.4, 0.8), (0.01, 3.0)])
def test_squaring_is_quadratic(start: float, constant: float) -> None:
    errors = [start]
    while errors[-1] > 1e-30 and len(errors) < 8:
        errors.append(constant * errors[-1] ** 2)
    rate = fit_rate(errors, floor=1e-40)
    assert rate.is_quadratic
    assert rate.order == pytest.approx(2, abs=1e-9)
    assert rate.constant == pytest.approx(constant, rel=1e-9)
    assert str(rate).startswith("quadratic: e_t+1 ~")


def test_an_order_between_one_and_two_is_superlinear_only() -> None:
    golden = (1 + 5**0.5) / 2
    errors = [0.2]
    for _ in range(5):
        errors.append(errors[-1] ** golden)
    rate = fit_rate(errors)
    assert rate.kind == "superlinear"
    assert not rate.is_linear
    assert not rate.is_quadratic
    assert rate.order == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_power_of_the_step_is_sublinear(power: float) -> None:
    rate = fit_rate([2.0 * (t + 1) ** -power for t in range(300)])
    assert rate.kind == "sublinear"
    assert rate.power == pytest.approx(power, abs=1e-9)
    assert str(rate).startswith("sublinear: e_t ~ (t + 1)^-")


@pytest.mark.parametrize("errors", [[0.3] * 10, [0.1 * 1.2**t for t in range(20)]])
def test_errors_that_do_not_fall_do_not_converge(errors: list[float]) -> None:
    rate = fit_rate(errors)
    assert rate.kind == "none"
    assert str(rate).startswith("no convergence")


def test_noise_around_a_level_is_no_convergence() -> None:
    numbers = stream(0, "test-rates").normal(size=(100, 30))
    kinds = [fit_rate(0.1 * torch.exp(0.3 * torch.from_numpy(row))).kind for row in numbers]
    assert kinds.count("none") > 90


def test_the_standard_error_of_the_slope_covers() -> None:
    numbers = stream(1, "test-rates").normal(size=(400, 25))
    steps = torch.arange(25, dtype=torch.float64)
    rates = [fit_rate(torch.exp(math.log(0.5) * steps + 0.3 * torch.from_numpy(row))) for row in numbers]
    # Student's t with 23 degrees of freedom: 95 percent within 2.07 standard errors.
    inside = sum(abs(rate.slope - math.log(0.5)) < 2.07 * rate.slope_error for rate in rates) / len(rates)
    assert 0.92 < inside < 0.98
    assert all(rate.is_linear for rate in rates)


def test_what_lies_at_the_floor_is_not_looked_at() -> None:
    noise = torch.from_numpy(stream(2, "test-rates").random(60)) * 1e-9
    errors = 0.5 ** torch.arange(60, dtype=torch.float64) + noise
    rate = fit_rate(errors, floor=1e-7)
    assert rate.is_linear
    assert rate.factor == pytest.approx(0.5, abs=1e-3)
    assert rate.used == 24
    # Without the floor the stall bends the line.
    assert fit_rate(errors).factor > 0.6


def test_an_error_that_reaches_zero_ends_the_sequence() -> None:
    rate = fit_rate([0.2, 0.04, 1.6e-3, 2.56e-6, 6.5536e-12, 0.0, 0.0])
    assert rate.is_quadratic
    assert rate.used == 5


def test_a_spiral_is_linear_with_the_modulus_of_its_factor() -> None:
    errors = [0.9**t * (1.5 + math.cos(0.7 * t)) for t in range(150)]
    rate = fit_rate(errors)
    assert rate.is_linear
    assert rate.factor == pytest.approx(0.9, abs=1e-3)


def test_newtons_method_is_recognized_as_quadratic() -> None:
    x, errors = 3.0, []
    for _ in range(7):
        errors.append(abs(x - 2**0.5))
        x = x - (x * x - 2) / (2 * x)
    rate = fit_rate(errors, floor=1e-15)
    assert rate.is_quadratic


def test_extragradient_is_recognized_as_linear() -> None:
    game = lab.random_game(0, responses=5, beta=0.1)
    run = lab.iterate(lab.extragradient, game, game.reference, 300, step=1 / 3.1)
    rate = fit_rate(run.kl[20:], floor=1e-24)
    assert rate.is_linear
    # The bound says (1 - s beta) a step; KL, being quadratic in the distance, does at least its square in the end.
    assert rate.factor < 1 - 0.1 / 3.1


def test_four_errors_are_needed() -> None:
    assert isinstance(fit_rate([0.1, 0.01, 1e-4, 1e-8]), Rate)
    with pytest.raises(ValueError, match="at least 4 errors before the floor 1e-05, got 3 of 4"):
        fit_rate([0.1, 0.01, 1e-4, 1e-8], floor=1e-5)


@pytest.mark.parametrize("errors", [[0.1, -0.1, 0.1, 0.1], [0.1, math.nan, 0.1, 0.1], [[0.1, 0.2], [0.1, 0.2]]])
def test_what_is_no_sequence_of_errors_is_refused(errors: list[float]) -> None:
    with pytest.raises(ValueError, match="one sequence of finite numbers"):
        fit_rate(torch.tensor(errors))
