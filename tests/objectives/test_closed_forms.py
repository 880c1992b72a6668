"""Each objective against its formula restated, and parity with the formulas of TRL 1.16's DPOTrainer.

``d`` is the log-ratio of the chosen answer minus that of the rejected one. TRL's ``sigmoid``, ``hinge`` and ``ipo``
losses are ``-log sigmoid(beta d)``, ``max(0, 1 - beta d)`` and ``(d_per_token - 1 / (2 beta))^2``, restated here with
plain math.
"""

from __future__ import annotations

import math

import pytest
import torch

from setsail.objectives import (
    LogProbs,
    dpo,
    implicit_preference,
    ipo,
    k1,
    k3,
    preference_entropy,
    self_labeled,
    slic,
)

CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED = (-31.5, -18.25), (-28.0, -44.5), (-30.0, -21.0), (-29.5, -40.0)
LENGTHS = ((11, 7), (9, 16))
BETAS = [0.05, 0.1, 0.5]


def _record() -> LogProbs:
    parts = (CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED)
    return LogProbs(
        *(torch.tensor(part, dtype=torch.float64) for part in parts), *(torch.tensor(part) for part in LENGTHS)
    )


def _differences(per_token: bool = False) -> list[float]:
    result = []
    for index in range(2):
        chosen, rejected = CHOSEN[index] - REFERENCE_CHOSEN[index], REJECTED[index] - REFERENCE_REJECTED[index]
        if per_token:
            chosen, rejected = chosen / LENGTHS[0][index], rejected / LENGTHS[1][index]
        result.append(chosen - rejected)
    return result


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_is_trls_sigmoid_loss(beta: float) -> None:
    wanted = [math.log1p(math.exp(-beta * d)) for d in _differences()]
    assert dpo(_record(), beta=beta).tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_slic_is_trls_hinge_loss(beta: float) -> None:
    wanted = [max(0.0, 1 - beta * d) for d in _differences()]
    assert slic(_record(), beta=beta).tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_ipo_with_length_normalization_is_trls_ipo_loss(beta: float) -> None:
    wanted = [(d - 1 / (2 * beta)) ** 2 for d in _differences(per_token=True)]
    assert ipo(_record(), beta=beta, length_normalize=True).tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_ipo_without_is_the_papers_equation(beta: float) -> None:
    wanted = [(d - 1 / (2 * beta)) ** 2 for d in _differences()]
    assert ipo(_record(), beta=beta).tolist() == pytest.approx(wanted, rel=1e-12)


def test_label_smoothing_flips_a_share_of_the_labels() -> None:
    wanted = [0.9 * math.log1p(math.exp(-0.1 * d)) + 0.1 * math.log1p(math.exp(0.1 * d)) for d in _differences()]
    assert dpo(_record(), label_smoothing=0.1).tolist() == pytest.approx(wanted, rel=1e-12)


def _at(d: float) -> LogProbs:
    zero = torch.zeros(1, dtype=torch.float64)
    return LogProbs(torch.tensor([d], dtype=torch.float64, requires_grad=True), zero, zero, zero)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_dpo_rests_where_the_implicit_preference_is_the_label(p: float) -> None:
    logps = _at(math.log(p / (1 - p)) / 0.1)
    (slope,) = torch.autograd.grad(dpo(logps, torch.tensor([p], dtype=torch.float64)), logps.policy_first)
    assert slope.item() == pytest.approx(0, abs=1e-12)
    assert implicit_preference(logps).item() == pytest.approx(p)


@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_ipo_rests_at_a_finite_margin(p: float) -> None:
    logps = _at((2 * p - 1) / (2 * 0.1))
    (slope,) = torch.autograd.grad(ipo(logps, torch.tensor([p], dtype=torch.float64)), logps.policy_first)
    assert slope.item() == pytest.approx(0, abs=1e-12)


def test_slic_stops_pulling_beyond_its_margin() -> None:
    for d, slope in ((9.9, -0.1), (10.1, 0.0)):
        logps = _at(d)
        (found,) = torch.autograd.grad(slic(logps), logps.policy_first)
        assert found.item() == pytest.approx(slope)


@pytest.mark.parametrize("u", [-5.0, -0.3, 0.0, 2.0])
def test_the_self_labeled_loss_of_dpo_is_the_entropy_of_its_preference(u: float) -> None:
    logps = _at(u / 0.1)
    q = 1 / (1 + math.exp(-u))
    entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
    assert preference_entropy(logps).item() == pytest.approx(entropy, abs=1e-12)
    loss = self_labeled(dpo, logps)
    assert loss.item() == pytest.approx(entropy, abs=1e-12)
    (slope,) = torch.autograd.grad(loss, logps.policy_first)
    assert slope.item() == pytest.approx(-0.1 * u * q * (1 - q), abs=1e-12)


def test_kl_estimators_have_the_mean_of_the_kl() -> None:
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]))
    kl = (p * (p / q).log()).sum().item()
    for estimator in (k1, k3):
        assert (p * estimator(p.log(), q.log())).sum().item() == pytest.approx(kl, abs=1e-12)
    assert k3(p.log(), q.log()).min().item() >= 0
    assert k1(p.log(), q.log()).min().item() < 0
