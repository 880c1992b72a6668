"""Acceptance tests 1, 2 and 6: reference values of arXiv 2406.15567's objectives and gradients on three responses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.objectives import (
    LogProbs,
    dpo,
    online_correction,
    preference_entropy,
    self_labeled,
    self_labeled_sampled,
)

BETA = 0.5
OBJECTIVE = partial(dpo, beta=BETA)


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_acceptance_1_oracle_objective() -> None:
    policy, world = lab.golden_world()
    value = lab.oracle_objective(policy, world.reference, world.preference, BETA)
    assert value.item() == pytest.approx(-0.7761987803, abs=1e-9)


def test_acceptance_1_response_score_term_and_on_policy_term() -> None:
    policy, world = lab.golden_world()
    pairs = lab.policy_pairs(policy.frozen(), world.preference)
    corrected = lab.expected_gradient(
        policy, world.reference, pairs, lambda logps, p: online_correction(OBJECTIVE(logps, p), logps, 1.0, 0.0)
    )
    plain = lab.expected_gradient(policy, world.reference, pairs, OBJECTIVE)
    # Surrogates descend on a loss; the reference values ascend on J.
    torch.testing.assert_close(
        -(corrected - plain), _vector(0.0315032754, -0.0347307659, 0.0032274905), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(-plain, _vector(-0.0008149516, 0.0809005657, -0.0800856141), atol=1e-9, rtol=0)


def test_acceptance_2_self_objective() -> None:
    policy, world = lab.golden_world()
    value = lab.self_objective(policy, world.reference, BETA)
    assert value.item() == pytest.approx(-0.6792810917, abs=1e-9)


@pytest.mark.parametrize("labels", ["averaged", "sampled"])
def test_acceptance_2_response_term_and_label_term(labels: str) -> None:
    policy, world = lab.golden_world()
    pairs = lab.policy_pairs(policy.frozen()).self_labeled(policy, world.reference, BETA)

    def label_term(logps: LogProbs, label: Tensor) -> Tensor:
        if labels == "averaged":
            return self_labeled(OBJECTIVE, logps, BETA)
        return self_labeled_sampled(OBJECTIVE, logps, 1 - label, 1.0, BETA)

    def corrected(logps: LogProbs, label: Tensor) -> Tensor:
        loss = self_labeled(OBJECTIVE, logps, BETA) if labels == "averaged" else OBJECTIVE(logps, label)
        return label_term(logps, label) + online_correction(loss, logps, 1.0, 0.0) - loss

    learned = lab.expected_gradient(policy, world.reference, pairs, label_term)
    both = lab.expected_gradient(policy, world.reference, pairs, corrected)
    torch.testing.assert_close(
        -(both - learned), _vector(-0.0048382245, 0.0065830292, -0.0017448046), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(-learned, _vector(0.0086453962, -0.0237058061, 0.0150604099), atol=1e-9, rtol=0)


def _pair_at(u: float, beta: float = 1.0) -> LogProbs:
    zero = torch.zeros(1, dtype=torch.float64)
    return LogProbs(torch.tensor([u / beta], dtype=torch.float64, requires_grad=True), zero, zero, zero)


def test_acceptance_6_scalar_values_at_a_margin_of_0_7() -> None:
    logps = _pair_at(0.7)
    objective = partial(dpo, beta=1.0)
    assert -objective(logps).item() == pytest.approx(-0.4031860489, abs=1e-10)
    sampled = self_labeled_sampled(objective, logps, torch.zeros(1), 0.2, beta=1.0)
    assert sampled.item() == pytest.approx(0.3869301499, abs=1e-10)
    (slope,) = torch.autograd.grad(sampled, logps.policy_first)
    assert slope.item() == pytest.approx(-0.3050558156, abs=1e-10)


def test_acceptance_6_entropy_and_its_slope_at_a_margin_of_0_7() -> None:
    logps = _pair_at(0.7)
    entropy = preference_entropy(logps, beta=1.0)
    assert entropy.item() == pytest.approx(0.6354546084, abs=1e-10)
    (slope,) = torch.autograd.grad(entropy, logps.policy_first)
    assert slope.item() == pytest.approx(-0.1551990113, abs=1e-10)
