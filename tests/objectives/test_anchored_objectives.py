"""NCA, SPPO with hard labels and APO: where each completion comes to rest, or which way it goes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail.objectives import (
    GroupLogProbs,
    LogProbs,
    PairwiseObjective,
    apo_down,
    apo_zero,
    nca_pair,
    sppo,
    sppo_hard,
)

BETA = 0.3


def _record(first: float, second: float) -> LogProbs:
    """One pair with these implicit rewards, with gradient, against a reference of -20 and -23 nats."""
    reference = [torch.tensor([value], dtype=torch.float64) for value in (-20.0, -23.0)]
    policy = [(at + reward / BETA).requires_grad_() for at, reward in zip(reference, (first, second), strict=True)]
    return LogProbs(*policy, *reference)


def _slopes(objective: PairwiseObjective, logps: LogProbs, p: float | None = None) -> list[float]:
    """The gradient in the two implicit rewards."""
    label = None if p is None else torch.tensor([p], dtype=torch.float64)
    loss = objective(logps, label, beta=BETA)  # type: ignore[call-arg]
    return [slope.item() / BETA for slope in torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second))]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _value(objective: PairwiseObjective, first: float, second: float) -> float:
    return objective(_record(first, second), None, beta=BETA).item()  # type: ignore[call-arg]


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (1.2, -0.7), (-2.0, 3.0)])
def test_the_equations_restated(first: float, second: float) -> None:
    up, down = _sigmoid(first), _sigmoid(second)
    wanted = -math.log(up) - 0.5 * math.log(1 - up) - 0.5 * math.log(1 - down)
    assert _value(nca_pair, first, second) == pytest.approx(wanted, rel=1e-12)
    assert _value(apo_zero, first, second) == pytest.approx(1 - up + down, rel=1e-12)
    assert _value(apo_down, first, second) == pytest.approx(up + 1 - _sigmoid(first - second), rel=1e-12)
    wanted = (first / BETA - 1 / (2 * BETA)) ** 2 + (second / BETA + 1 / (2 * BETA)) ** 2
    assert _value(sppo_hard, first, second) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("second", [-4.0, 0.0, 2.0])
def test_nca_brings_the_chosen_completion_to_a_reward_of_log_2_whatever_the_other_does(second: float) -> None:
    for offset, sign in ((-0.1, -1), (0.0, 0), (0.1, 1)):
        first_slope, second_slope = _slopes(nca_pair, _record(math.log(2) + offset, second))
        assert math.copysign(1, first_slope) == sign or abs(first_slope) < 1e-12
        assert second_slope == pytest.approx(_sigmoid(second) / 2)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_nca_with_a_soft_label_rests_where_each_completions_share_says(p: float) -> None:
    """``sigmoid(r) = p / (p + 1/2)``: a reward of log(2p), so that a tie rests at the reference."""
    assert _slopes(nca_pair, _record(math.log(2 * p), math.log(2 * (1 - p))), p) == pytest.approx([0, 0], abs=1e-12)


def test_sppo_moves_winner_and_loser_apart_on_their_own() -> None:
    """At the reference the slopes in h are -1 / beta and 1 / beta, here divided by beta once more."""
    assert _slopes(sppo_hard, _record(0.0, 0.0)) == pytest.approx([-1 / BETA**2, 1 / BETA**2])
    for second in (-3.0, 3.0):
        assert _slopes(sppo_hard, _record(0.5, second))[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [(0.3, -0.8), (-1.0, 0.1)])
def test_sppo_with_hard_labels_is_twice_that_of_the_group_with_win_rates_1_and_0(first: float, second: float) -> None:
    logps = _record(first, second)
    policy = torch.stack((logps.policy_first, logps.policy_second), 1)
    reference = torch.stack((logps.reference_first, logps.reference_second), 1)
    wins = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    group = sppo(GroupLogProbs(policy, reference), wins, beta=BETA)
    torch.testing.assert_close(sppo_hard(logps, None, beta=BETA), 2 * group, atol=0, rtol=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_soft_label_has_the_gradient_of_sppos_soft_target(p: float) -> None:
    first, second = 0.4, -0.2
    wanted = [2 * (h / BETA - (share - 0.5) / BETA) / BETA for h, share in ((first, p), (second, 1 - p))]
    assert _slopes(sppo_hard, _record(first, second), p) == pytest.approx(wanted)


def _signs(values: list[float]) -> list[int]:
    return [0 if abs(value) < 1e-12 else int(math.copysign(1, value)) for value in values]


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (2.0, -1.0), (-1.0, 3.0)])
def test_apo_zero_always_raises_the_chosen_and_lowers_the_rejected(first: float, second: float) -> None:
    """In the loss direction: a negative slope is a step up."""
    assert _signs(_slopes(apo_zero, _record(first, second))) == [-1, 1]


def test_apo_down_lowers_the_rejected_first_and_the_chosen_once_they_are_apart() -> None:
    assert _slopes(apo_down, _record(0.0, 0.0)) == pytest.approx([0.0, 0.25], abs=1e-12)
    assert _signs(_slopes(apo_down, _record(0.0, -2.0))) == [1, 1]
    assert _signs(_slopes(apo_down, _record(-3.0, -3.0))) == [-1, 1]


@pytest.mark.parametrize("objective", [apo_zero, apo_down])
def test_apo_is_bounded(objective: PairwiseObjective) -> None:
    values = torch.linspace(-60, 60, 25, dtype=torch.float64)
    first, second = torch.cartesian_prod(values, values).unbind(-1)
    zero: Tensor = torch.zeros_like(first)
    loss = objective(LogProbs(first, second, zero, zero), None, beta=BETA)  # type: ignore[call-arg]
    assert loss.min().item() >= 0
    assert loss.max().item() <= 2
