"""Acceptance tests 6 and 24: huge margins and near-certain answers give finite losses and gradients of normal size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail.objectives import (
    LogProbs,
    dpo,
    ipo,
    online_correction,
    preference_entropy,
    robust,
    self_labeled,
    self_labeled_sampled,
    slic,
)

BETA = 0.1
LOSSES: dict[str, Callable[[LogProbs], Tensor]] = {
    "dpo": partial(dpo, beta=BETA),
    "dpo-second": lambda logps: dpo(logps, torch.zeros_like(logps.policy_first), BETA),
    "dpo-smoothed": partial(dpo, beta=BETA, label_smoothing=0.1),
    "slic": partial(slic, beta=BETA),
    "entropy": partial(preference_entropy, beta=BETA),
    "self-averaged": lambda logps: self_labeled(partial(dpo, beta=BETA), logps, BETA),
    "self-sampled-first": lambda logps: self_labeled_sampled(
        partial(dpo, beta=BETA), logps, torch.zeros_like(logps.policy_first), 0.2, BETA
    ),
    "robust": robust(partial(dpo, beta=BETA), 0.1),
}


def _record(first: list[float], second: list[float], dtype: torch.dtype) -> LogProbs:
    reference = torch.zeros(len(first), dtype=dtype)
    policy = [torch.tensor(values, dtype=dtype, requires_grad=True) for values in (first, second)]
    return LogProbs(policy[0], policy[1], reference, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_acceptance_6_margins_of_60_stay_finite(name: str, dtype: torch.dtype) -> None:
    logps = _record([60 / BETA, -60 / BETA], [0.0, 0.0], dtype)
    loss = LOSSES[name](logps)
    slopes = torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second))
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("u", [60.0, -60.0])
def test_acceptance_6_a_saturated_loss_has_the_value_of_its_margin(u: float) -> None:
    logps = _record([u / BETA], [0.0], torch.float32)
    assert dpo(logps, beta=BETA).item() == pytest.approx(max(-u, 0.0), abs=1e-4)
    assert preference_entropy(logps, beta=BETA).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("certain", [0.0, -1e-3])
def test_acceptance_24_near_certain_answers_give_gradients_of_normal_size(name: str, certain: float) -> None:
    """The published code divides by the log-prob of every answer: 0 gives NaN there and -1e-3 a gradient of 200."""
    logps = _record([certain, certain, -300.0], [-300.0, certain, certain], torch.float32)
    loss = LOSSES[name](logps)
    corrected = online_correction(loss, logps, 0.3, loss.detach().mean())
    slopes = torch.autograd.grad(corrected.sum(), (logps.policy_first, logps.policy_second))
    # |d loss / d log pi| <= beta (1 + loss) for these losses, |correction| <= 0.3 times the spread of the losses.
    bound = BETA * (1 + loss.detach().abs().max().item()) + 0.3 * (loss.max() - loss.min()).item() + 1e-6
    for slope in slopes:
        assert torch.isfinite(slope).all()
        assert slope.abs().max().item() <= bound


@pytest.mark.parametrize("certain", [0.0, -1e-3])
def test_acceptance_24_ipo_pulls_with_twice_the_distance_to_its_margin(certain: float) -> None:
    logps = _record([certain], [certain], torch.float32)
    (slope,) = torch.autograd.grad(ipo(logps, beta=BETA).sum(), (logps.policy_first,))
    assert slope.item() == pytest.approx(-1 / BETA, rel=1e-5)
