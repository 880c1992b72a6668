"""DPO with something else inside the sigmoid: an anchor, lengths, a share of the reference, a bias, an offset."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import (
    GroupLogProbs,
    LogProbs,
    cpl,
    cpo,
    dpo,
    dpo_gamma,
    dpo_positive,
    length_normalized_dpo,
    length_regularized_dpo,
    margin_dpo,
)


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _record(first: float, second: float, lengths: tuple[int, int] = (1, 1)) -> LogProbs:
    """One pair with these log-ratios, with gradient, against a reference of -20 and -23 nats."""
    policy = [_numbers(value).requires_grad_() for value in (first - 20, second - 23)]
    return LogProbs(*policy, _numbers(-20), _numbers(-23), torch.tensor(lengths[:1]), torch.tensor(lengths[1:]))


def _random(pairs: int, scale: float = 2.0) -> LogProbs:
    return LogProbs(*torch.from_numpy(stream(0, "shaped margins").normal(size=(4, pairs))) * scale)


def _slopes(loss: Tensor, logps: LogProbs) -> list[float]:
    slopes = torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second))
    return [slope.item() for slope in slopes]


def _softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# DPO-positive.


def test_dpop_counts_the_fall_of_the_chosen_completion_fifty_times() -> None:
    """h = (-0.2, -1): d = 0.8, and 50 times 0.2 taken off."""
    logps = _record(-0.2, -1.0)
    loss = dpo_positive(logps, beta=0.1, penalty=50.0)
    assert loss.item() == pytest.approx(_softplus(-0.1 * (0.8 - 10)), rel=1e-12)
    weight = 0.1 * _sigmoid(0.92)
    assert _slopes(loss, logps) == pytest.approx([-51 * weight, weight])


def test_dpop_is_dpo_while_the_chosen_completion_has_not_fallen() -> None:
    for first, second in ((0.0, -1.0), (0.3, 4.0)):
        assert torch.equal(dpo_positive(_record(first, second)), dpo(_record(first, second)))
    assert torch.equal(dpo_positive(_random(50), penalty=0.0), dpo(_random(50)))


def test_dpop_guards_the_completion_that_the_label_prefers() -> None:
    """The second has fallen: the other label's loss pays, the first's does not."""
    logps, second = _record(0.5, -0.2), torch.zeros(1, dtype=torch.float64)
    assert torch.equal(dpo_positive(logps), dpo(logps))
    assert dpo_positive(logps, second).item() == pytest.approx(_softplus(-0.1 * (-0.7 - 10)), rel=1e-12)


# Lengths.


def test_a_longer_winner_already_looks_satisfied() -> None:
    """The sign of the length term: at no margin, ten tokens more weigh the pair with less than a half."""
    weights = []
    for lengths in ((30, 20), (20, 20), (20, 30)):
        logps = _record(0.0, 0.0, lengths)
        weights.append(-_slopes(length_regularized_dpo(logps, beta=1.0), logps)[0])
    assert weights == pytest.approx([_sigmoid(-2), 0.5, _sigmoid(2)])
    assert weights[0] < 0.5


def test_without_a_length_weight_it_is_dpo() -> None:
    logps = _record(0.7, -0.3, (40, 3))
    assert torch.equal(length_regularized_dpo(logps, length_weight=0.0), dpo(logps))


def test_length_normalization_divides_each_log_ratio_by_its_own_length() -> None:
    logps = _record(0.6, -3.0, (2, 5))
    loss = length_normalized_dpo(logps, beta=2.0)
    assert loss.item() == pytest.approx(_softplus(-2 * (0.3 + 0.6)), rel=1e-12)
    weight = 2 * _sigmoid(-1.8)
    assert _slopes(loss, logps) == pytest.approx([-weight / 2, weight / 5])


def test_with_answers_of_one_token_it_is_dpo() -> None:
    assert torch.equal(length_normalized_dpo(_record(0.7, -0.3), beta=0.4), dpo(_record(0.7, -0.3), beta=0.4))


# A share of the reference.


def test_the_share_leads_from_reference_free_to_dpo() -> None:
    logps, p = _random(50), torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(dpo_gamma(logps, p, 0.3), dpo(logps, p, 0.3), atol=1e-14, rtol=1e-14)
    assert torch.equal(dpo_gamma(logps, p, 0.3, reference_weight=0.0), cpo(logps, p, 0.3))
    half = dpo_gamma(_record(0.0, 0.0), beta=1.0, reference_weight=0.5).item()
    assert half == pytest.approx(_softplus(-1.5))


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_a_pair_is_ranked_right_exactly_where_the_loss_is_low_enough(beta: float) -> None:
    """``loss <= -log sigmoid(beta c)`` iff ``lp(w) >= lp(l)``, on 20 000 pairs without an exception."""
    logps = _random(20_000)
    c = logps.reference_second - logps.reference_first
    threshold = -torch.nn.functional.logsigmoid(beta * c)
    right = logps.policy_first >= logps.policy_second
    assert torch.equal(dpo_gamma(logps, None, beta) <= threshold, right)
    assert torch.equal(dpo(logps, None, beta) <= threshold, right)
    assert 9_000 < int(right.sum()) < 11_000


@pytest.mark.parametrize(("c", "needed"), [(5.0, 0.4741), (30.0, 0.0486)])
def test_the_loss_that_a_wrongly_ranked_pair_has_to_come_down_to(c: float, needed: float) -> None:
    even = LogProbs(_numbers(-50), _numbers(-50), _numbers(-50 - c), _numbers(-50))
    assert dpo_gamma(even).item() == pytest.approx(needed, abs=5e-5)


# A bias.

PREFERRED, OTHER = (-1.0, -2.0, -0.5), (-1.5, -0.7, -2.0)


def _segments(discount: float = 1.0) -> LogProbs:
    """Log-probs of two segments of three steps, summed with a discount, as a caller does it."""
    sums = (sum(discount**t * step for t, step in enumerate(steps)) for steps in (PREFERRED, OTHER))
    return LogProbs(*(_numbers(value) for value in sums), _numbers(0), _numbers(0))


@pytest.mark.parametrize(
    ("bias", "discount", "value"),
    [(1.0, 1.0, 0.658760), (1.0, 0.9, 0.666268), (0.5, 1.0, 0.765595), (0.5, 0.9, 0.761857)],
)
def test_the_values_of_cpl_on_two_segments(bias: float, discount: float, value: float) -> None:
    found = cpl(_segments(discount), beta=0.1, bias=bias, reference_free=True).item()
    assert found == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("bias", "values"), [(1.0, [0.403186] * 4), (0.5, [0.770957, 0.533382, 0.355865, 0.230509])])
def test_the_bias_rewards_likelier_segments(bias: float, values: list[float]) -> None:
    """Sums 1 and 0.3, both moved by -2, -1, 0, 1."""
    shifts = _numbers(-2, -1, 0, 1)
    logps = LogProbs(1 + shifts, 0.3 + shifts, torch.zeros_like(shifts), torch.zeros_like(shifts))
    assert cpl(logps, beta=1.0, bias=bias, reference_free=True).tolist() == pytest.approx(values, abs=1e-6)


def test_without_a_bias_cpl_is_dpo_or_cpo() -> None:
    logps, p = _random(50), torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(cpl(logps, p, 0.3, bias=1.0), dpo(logps, p, 0.3), atol=1e-14, rtol=1e-14)
    found = cpl(logps, p, 0.3, bias=1.0, reference_free=True)
    torch.testing.assert_close(found, cpo(logps, p, 0.3), atol=1e-14, rtol=1e-14)


def test_the_bias_multiplies_the_segment_that_is_not_preferred() -> None:
    logps = _record(0.4, -0.6)
    weight = 0.2 * _sigmoid(0.75 * 0.2 * -0.6 - 0.2 * 0.4)
    assert _slopes(cpl(logps, beta=0.2, bias=0.75), logps) == pytest.approx([-weight, 0.75 * weight])


# An offset.


def _group(margin: float, *values: float) -> tuple[GroupLogProbs, Tensor]:
    """Two completions with this log-ratio difference, and their values."""
    policy = _numbers(margin - 20, -20).view(1, 2).requires_grad_()
    return GroupLogProbs(policy, torch.full((1, 2), -20.0, dtype=torch.float64)), _numbers(*values).view(1, 2)


@pytest.mark.parametrize(("gap", "value"), [(0.3, 0.513015), (0.0, 0.403186), (0.7, 0.693147)])
def test_the_offset_is_subtracted_inside_the_sigmoid(gap: float, value: float) -> None:
    """At a margin of 0.7; log 2 where it equals the offset. Values of 2 + gap and 2, or a scale that makes them so."""
    assert _softplus(gap - 0.7) == pytest.approx(value, abs=1e-6)
    if gap:
        assert margin_dpo(*_group(0.7, 2 + gap, 2), beta=1.0).item() == pytest.approx(value, abs=1e-6)
        assert margin_dpo(*_group(7.0, 2 + 5 * gap, 2), scale=0.2).item() == pytest.approx(value, abs=1e-6)
    else:
        assert margin_dpo(*_group(0.7, 2.1, 2), beta=1.0, scale=0.0).item() == pytest.approx(value, abs=1e-6)


def test_the_larger_value_wins_wherever_it_stands() -> None:
    logps, values = _group(0.7, 2.0, 2.3)
    assert margin_dpo(logps, values, beta=1.0).item() == pytest.approx(_softplus(0.3 + 0.7))
    flipped = GroupLogProbs(logps.policy.flip(1), logps.reference.flip(1))
    assert torch.equal(margin_dpo(flipped, values.flip(1), beta=1.0), margin_dpo(logps, values, beta=1.0))


def test_a_tie_is_dpo_at_a_half_without_an_offset() -> None:
    logps, values = _group(0.7, 1.5, 1.5)
    half = _numbers(0.5)
    assert torch.equal(margin_dpo(logps, values, beta=1.0, scale=9.0), dpo(logps.pair(), half, beta=1.0))


def test_without_a_scale_only_the_winner_matters() -> None:
    policy, reference = torch.from_numpy(stream(1, "groups").normal(size=(2, 50, 2)))
    values = torch.from_numpy(stream(2, "groups").normal(size=(50, 2)))
    logps = GroupLogProbs(policy, reference)
    hard = (values[:, 0] > values[:, 1]).double()
    assert torch.equal(margin_dpo(logps, values, beta=0.4, scale=0.0), dpo(logps.pair(), hard, beta=0.4))


def test_the_pull_is_that_of_the_margin_still_missing() -> None:
    logps, values = _group(0.7, 2.3, 2.0)
    (slope,) = torch.autograd.grad(margin_dpo(logps, values, beta=1.0).sum(), logps.policy)
    weight = _sigmoid(0.3 - 0.7)
    assert slope.flatten().tolist() == pytest.approx([-weight, weight])


def test_more_than_two_completions_are_refused() -> None:
    three = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="exactly two completions of a prompt, got 3"):
        margin_dpo(GroupLogProbs(three, three), three)


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale must be 0 .no offset. or a positive number, got -1.0"):
        margin_dpo(*_group(0.7, 1.0, 0.0), scale=-1.0)
