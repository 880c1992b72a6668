"""Known optima of the tabular world, and training without sampling noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from setsail.lab.exact import expected_reward, reverse_kl
from setsail.lab.gradients import along
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


def optimal_policy(reference: EnumerablePolicy, reward: Tensor, beta: float) -> TabularPolicy:
    """The maximizer of ``E[r] - beta KL(pi || pi_ref)``: ``pi*(y|x)`` proportional to ``pi_ref(y|x) exp(r / beta)``.

    Args:
        reward: shape ``(prompts, responses)``.
        beta: strength of the KL penalty, > 0.

    Source: arXiv 2305.18290, equation 4.

    >>> reference = TabularPolicy.uniform(prompts=1, responses=2)
    >>> best = optimal_policy(reference, torch.tensor([[0.0, 1.0]]), beta=1.0)
    >>> [round(share, 4) for share in best.log_probs().exp()[0].tolist()]
    [0.2689, 0.7311]
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return TabularPolicy(reference.log_probs().detach() + reward / beta)


def best_reward_at_kl(reference: EnumerablePolicy, reward: Tensor, kl: float) -> float:
    """The largest ``E[r]`` that any policy reaches at ``KL(pi || pi_ref) = kl`` nats: the reward-KL frontier.

    The frontier is traced by :func:`optimal_policy` as beta varies.

    Raises:
        ValueError: no policy on the frontier has that KL (all mass on the best responses has less).
    """
    if kl <= 0:
        return expected_reward(reference, reward).item()

    def excess(log_beta: float) -> float:
        return reverse_kl(optimal_policy(reference, reward, math.exp(log_beta)), reference).item() - kl

    if excess(-6.0) < 0:
        raise ValueError(f"no optimal policy is as far as {kl} nats from this reference; ask for a smaller KL")
    log_beta = brentq(excess, -6.0, 12.0, xtol=1e-12)
    return expected_reward(optimal_policy(reference, reward, math.exp(log_beta)), reward).item()


@dataclass(frozen=True, slots=True)
class Fit:
    """How training ended: steps taken and the largest coordinate of the last gradient."""

    steps: int
    residual: float


def train_exact(
    policy: EnumerablePolicy,
    direction: Callable[[], Tensor],
    *,
    rate: float = 1.0,
    steps: int = 20_000,
    tolerance: float = 1e-9,
) -> Fit:
    """Descend along ``direction`` until it vanishes: ``theta <- theta - rate * direction()``.

    Args:
        policy: changed in place.
        direction: the gradient of a loss, or the expected gradient of a surrogate (which need not be the gradient of
            anything: on-policy DPO holds its samples fixed), flat, shape ``(parameters,)``.
        rate: step size.
        steps: give up after so many.
        tolerance: stop when no coordinate is larger.

    Returns:
        The number of steps and the residual; a residual above ``tolerance`` means it did not converge.
    """
    residual = math.inf
    for step in range(steps):
        slope = direction()
        residual = slope.abs().max().item()
        if residual <= tolerance:
            return Fit(step, residual)
        _move(policy, -rate * slope)
    return Fit(steps, residual)


@torch.no_grad()
def _move(policy: EnumerablePolicy, change: Tensor) -> None:
    for parameter, part in along(change, policy):
        parameter.add_(part)
