"""Several reward models as one: mean, worst case, variance-penalized, and what lies between mean and worst case.

Each reducer maps rewards of shape ``(models, ...)`` to shape ``(...)``; the rewards' units must be comparable, and no
model is rescaled first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODELS = torch.tensor([[1.0, 0.6, 0.0], [0.9, 0.6, 0.0], [-1.0, 0.6, 0.0]], dtype=torch.float64)
"""Three models of three responses: they disagree about the first and agree about the others."""


def mean_reward(rewards: Tensor) -> Tensor:
    """``(1/k) sum_i R_i``.

    >>> [round(each, 4) for each in mean_reward(MODELS).tolist()]
    [0.3, 0.6, 0.0]
    """
    return _checked(rewards).mean(0)


def worst_case(rewards: Tensor) -> Tensor:
    """``min_i R_i``, response by response: each is judged by the model that likes it least.

    Not the worst model's expectation (:func:`worst_expectation`): the minimum inside the expectation is smaller, and
    its optimum is another policy.

    Source: arXiv 2310.02743, worst-case optimization.

    >>> worst_case(MODELS).tolist()
    [-1.0, 0.6, 0.0]
    """
    return _checked(rewards).amin(0)


def variance_penalized(rewards: Tensor, weight: float, *, unbiased: bool = False) -> Tensor:
    """``mean_i R_i - weight Var_i R_i``.

    Args:
        weight: 1 / (reward unit); 0 is the mean.
        unbiased: divide the sum of squares by k - 1 instead of k; the same weight is then k / (k - 1) times stronger.

    Source: arXiv 2310.02743, uncertainty-weighted optimization; divisor k, as in its best-of-n path (its PPO path uses
    k - 1).

    >>> [round(each, 4) for each in variance_penalized(MODELS, 0.5).tolist()]
    [-0.1233, 0.6, 0.0]
    """
    return _checked(rewards).mean(0) - weight * rewards.var(0, unbiased=unbiased)


def soft_minimum(rewards: Tensor, beta: float) -> Tensor:
    """``-beta log((1/k) sum_i exp(-R_i / beta))``: the mean as beta grows, the worst case as it goes to 0.

    To second order in 1 / beta it is ``mean - Var / (2 beta)``, divisor k.

    Raises:
        ValueError: beta <= 0.

    >>> [round(each, 4) for each in soft_minimum(MODELS, 1.0)[:2].tolist()]
    [-0.1521, 0.6]
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}; use worst_case for the limit at 0")
    models = _checked(rewards)
    return -beta * ((-models / beta).logsumexp(0) - math.log(len(models)))


def worst_expectation(rewards: Tensor, shares: Tensor) -> Tensor:
    """``min_i E_pi[R_i]``, a scalar for one policy: the worst model's opinion of the whole policy.

    Args:
        rewards: shape ``(models, responses)``.
        shares: the policy's probabilities, shape ``(responses,)``.

    Source: arXiv 2402.08925 (a reward a group of users, the worst-off group counts), arXiv 2409.15360.

    >>> worst_expectation(MODELS, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)).item()
    -0.2
    """
    return (_checked(rewards) @ shares).amin()


def _checked(rewards: Tensor) -> Tensor:
    if rewards.dim() < 2 or not len(rewards):
        raise ValueError(
            f"rewards of an ensemble need the models along the first axis, shape (models, ...), got "
            f"{tuple(rewards.shape)}"
        )
    return rewards
