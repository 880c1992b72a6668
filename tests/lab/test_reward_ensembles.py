"""Several reward models as one: published figures, limits, and what the minimum is taken of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.reward_ensembles import (
    MODELS,
    mean_reward,
    soft_minimum,
    variance_penalized,
    worst_case,
    worst_expectation,
)
from setsail.policies.tabular import TabularPolicy

FIVE = torch.from_numpy(stream(0, "test-reward-ensembles").normal(size=(5, 4, 7)))


def test_three_models_of_three_responses() -> None:
    """arXiv 2310.02743's reducers, by hand."""
    assert mean_reward(MODELS).tolist() == pytest.approx([0.3, 0.6, 0.0])
    assert worst_case(MODELS).tolist() == pytest.approx([-1.0, 0.6, 0.0])
    assert variance_penalized(MODELS, 0.5).tolist() == pytest.approx([0.3 - 0.5 * 2.54 / 3, 0.6, 0.0])


def test_the_penalty_is_on_the_variance_with_divisor_k() -> None:
    penalty = [mean_reward(FIVE) - variance_penalized(FIVE, 1.0, unbiased=unbiased) for unbiased in (False, True)]
    torch.testing.assert_close(penalty[0], (FIVE - FIVE.mean(0)).square().mean(0))
    torch.testing.assert_close(penalty[0] / penalty[1], torch.full((4, 7), 0.8, dtype=torch.float64))
    torch.testing.assert_close(variance_penalized(FIVE, 0.0), mean_reward(FIVE), atol=0, rtol=0)


REDUCERS: list[Callable[[Tensor], Tensor]] = [
    mean_reward,
    worst_case,
    lambda rewards: variance_penalized(rewards, 0.5),
    lambda rewards: soft_minimum(rewards, 0.7),
]


@pytest.mark.parametrize("reduce", REDUCERS)
def test_one_model_stands_for_itself(reduce: Callable[[Tensor], Tensor]) -> None:
    torch.testing.assert_close(reduce(FIVE[:1]), FIVE[0])


@pytest.mark.parametrize("reduce", REDUCERS)
def test_a_constant_added_to_every_model_is_added_to_the_result(reduce: Callable[[Tensor], Tensor]) -> None:
    torch.testing.assert_close(reduce(FIVE + 3.0), reduce(FIVE) + 3.0)


def test_the_soft_minimum_lies_between_mean_and_worst_case() -> None:
    torch.testing.assert_close(soft_minimum(FIVE, 1e7), mean_reward(FIVE), atol=1e-6, rtol=0)
    torch.testing.assert_close(soft_minimum(FIVE, 1e-4), worst_case(FIVE), atol=2e-4, rtol=0)
    middle = soft_minimum(FIVE, 0.5)
    assert (worst_case(FIVE) <= middle).all()
    assert (middle <= mean_reward(FIVE)).all()


def test_to_second_order_the_soft_minimum_is_a_variance_penalty() -> None:
    errors = [
        (soft_minimum(FIVE, beta) - variance_penalized(FIVE, 1 / (2 * beta))).abs().max().item()
        for beta in (20.0, 40.0)
    ]
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)  # what is left is of order 1 / beta^2


def test_the_worse_of_two_expectations_is_not_the_expectation_of_the_worse() -> None:
    """arXiv 2402.08925 against arXiv 2310.02743, beta 0.1, uniform reference."""
    groups = torch.tensor([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]], dtype=torch.float64)
    reference = TabularPolicy.uniform(1, 3)
    outside = lab.optimal_policy(reference, mean_reward(groups)[None], 0.1).log_probs().detach().exp()[0]
    inside = lab.optimal_policy(reference, worst_case(groups)[None], 0.1).log_probs().detach().exp()[0]
    assert outside.tolist() == pytest.approx([0.4223, 0.4223, 0.1554], abs=5e-5)
    assert inside.tolist() == pytest.approx([0.0177, 0.0177, 0.9647], abs=5e-5)
    assert worst_expectation(groups, outside).item() == pytest.approx(0.48446, abs=5e-6)
    assert worst_expectation(groups, inside).item() == pytest.approx(0.4035, abs=5e-5)


def test_what_cannot_be_reduced_is_refused() -> None:
    with pytest.raises(ValueError, match="models along the first axis"):
        mean_reward(torch.zeros(3))
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        soft_minimum(MODELS, 0.0)
