"""Rewards learnt from few noisy comparisons: what a policy then optimizes in place of the gold reward.

Axis legend: ``prompts`` (independent worlds here), ``responses``, ``comparisons``. Rewards in nats of log-odds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Pairs of responses and which of the two won, a row a prompt.

    Attributes:
        won, lost: indices of the responses, shape ``(prompts, comparisons)``.
        responses: how many responses there are.
    """

    won: Tensor
    lost: Tensor
    responses: int

    def wins(self) -> Tensor:
        """How often response i beat response j, shape ``(prompts, responses, responses)``, counts."""
        prompts, _ = self.won.shape
        flat = torch.zeros(prompts, self.responses**2, dtype=torch.float64)
        flat.scatter_add_(1, self.won * self.responses + self.lost, torch.ones_like(self.won, dtype=torch.float64))
        return flat.view(prompts, self.responses, self.responses)

    def chosen(self) -> Tensor:
        """The share of comparisons that each response won, shape ``(prompts, responses)``; sums to 1."""
        return self.wins().sum(-1) / self.won.shape[1]

    def resampled(self, numbers: np.random.Generator) -> Comparisons:
        """As many comparisons drawn from these with replacement: what one member of an ensemble sees."""
        rows = torch.from_numpy(numbers.integers(0, self.won.shape[1], size=tuple(self.won.shape)))
        return Comparisons(self.won.gather(1, rows), self.lost.gather(1, rows), self.responses)


def rare_is_worse(
    numbers: np.random.Generator, *, prompts: int = 40, responses: int = 50, spread: float = 2.0, share: float = 0.7
) -> tuple[TabularPolicy, Tensor]:
    """Independent worlds in which the reference mostly says good things, and cannot be asked about the rest.

        log pi_ref = spread z + const,      gold = share z + sqrt(1 - share^2) e,      z, e ~ N(0, 1)

    Gold rewards are standard normal, correlated by ``share`` with the reference's log-probs. Comparisons of the
    reference's draws say little about rare responses, which is where a policy that optimizes their fit is led to.

    Returns:
        The reference, and the gold reward of shape ``(prompts, responses)``.
    """
    common, rest = torch.from_numpy(numbers.normal(size=(2, prompts, responses)))
    return TabularPolicy(spread * common), share * common + math.sqrt(1 - share**2) * rest


def compare_draws(reference: EnumerablePolicy, gold: Tensor, uniforms: Tensor) -> Comparisons:
    """Pairs of independent draws of the reference, labeled by Bradley-Terry at the gold reward, noise and all.

    Args:
        gold: shape ``(prompts, responses)``.
        uniforms: numbers in [0, 1) for the two draws and the label, shape ``(prompts, comparisons, 3)``.

    >>> reference, gold = TabularPolicy.uniform(1, 2), torch.tensor([[0.0, 100.0]], dtype=torch.float64)
    >>> compare_draws(reference, gold, torch.tensor([[[0.1, 0.6, 0.3]]], dtype=torch.float64)).wins().tolist()
    [[[0.0, 0.0], [1.0, 0.0]]]
    """
    prompts, responses = gold.shape
    prompt = torch.arange(prompts)
    first, second = reference.sample(prompt, uniforms[..., 0]), reference.sample(prompt, uniforms[..., 1])
    is_first = uniforms[..., 2] < torch.sigmoid(gold.gather(1, first) - gold.gather(1, second))
    return Comparisons(torch.where(is_first, first, second), torch.where(is_first, second, first), responses)


def fit_reward(
    wins: Tensor,
    *,
    ridge: float = 0.0,
    pessimism: float = 0.0,
    reference: EnumerablePolicy | None = None,
    base: Tensor | None = None,
    beta: float = 1.0,
) -> Tensor:
    """The Bradley-Terry reward of given comparisons, plain or pessimistic, by Newton's method.

        min_r  sum_ij wins_ij softplus(r_j - r_i) + ridge/2 |r|^2
               + pessimism [ beta log E_{pi_ref} exp(r / beta) - E_base r ]

    The last line is what the best policy of reward r gains over ``base``, ``max_pi E_pi r - E_base r - beta KL(pi ||
    pi_ref)``: the adversary of regularized preference optimization, who makes the policy's gain as small as the
    comparisons allow. Its inner policy is :func:`setsail.lab.optimal_policy` of the result.

    Args:
        wins: weight of each outcome, shape ``(prompts, responses, responses)``.
        ridge: strength of the prior N(0, 1 / ridge) on each reward.
        pessimism: eta >= 0, on the scale of ``wins`` (divide them by their total for eta per comparison).
        reference, base, beta: of the pessimistic term; ``base`` has shape ``(prompts, responses)``, rows sum to 1.

    Returns:
        Shape ``(prompts, responses)``; where ridge is 0 it is centered, since a constant changes nothing. The fit ends
        where the slope is below 1e-11: a response that always won has no finite reward without a ridge, and gets
        some 25 nats.

    Raises:
        ValueError: pessimism without reference and base; no fit within 500 steps.

    Source: arXiv 2405.16436, the minimax objective; Bradley-Terry: arXiv 2305.18290, equation 2.

    >>> [round(each, 6) for each in fit_reward(torch.tensor([[[0.0, 3.0], [1.0, 0.0]]]))[0].tolist()]
    [0.549306, -0.549306]
    """
    if pessimism and (reference is None or base is None):
        raise ValueError("pessimism is measured against a reference and a base policy; give both")
    prompts, responses, _ = wins.shape
    wins, reward = wins.to(torch.float64), torch.zeros(prompts, responses, dtype=torch.float64)
    longest = min(1.0, beta) if pessimism else 1.0
    for _ in range(500):
        slope, curvature = _comparing(wins, reward, ridge)
        if pessimism and reference is not None and base is not None:
            pull, bend = _gaining(reference, base, reward, beta)
            slope, curvature = slope + pessimism * pull, curvature + pessimism * bend
        step = _solved(curvature, slope, singular=not ridge)
        # Far from the minimum a whole step overshoots: at most one nat, of the reward or of the inner policy's logits.
        reward = reward - step / (step.abs().amax(-1, keepdim=True) / longest).clamp(min=1.0)
        if not ridge:
            reward = reward - reward.mean(-1, keepdim=True)
        if slope.abs().max() < 1e-11:
            return reward
    raise ValueError(
        f"no reward fits these comparisons within 500 steps: the slope is still {slope.abs().max():.2g}; give a larger "
        "ridge or beta"
    )


def _comparing(wins: Tensor, reward: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of the comparisons' loss with its ridge."""
    lost = torch.sigmoid(reward.unsqueeze(-2) - reward.unsqueeze(-1))
    pull = wins * lost
    bend = (wins + wins.mT) * lost * (1 - lost)
    identity = torch.eye(reward.shape[-1], dtype=torch.float64)
    slope = pull.sum(-2) - pull.sum(-1) + ridge * reward
    return slope, torch.diag_embed(bend.sum(-1)) - bend + ridge * identity


def _gaining(reference: EnumerablePolicy, base: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of what the best policy gains over the base."""
    policy = (reference.log_probs().detach() + reward / beta).softmax(-1)
    spread = torch.diag_embed(policy) - policy.unsqueeze(-1) * policy.unsqueeze(-2)
    return policy - base, spread / beta


def _solved(curvature: Tensor, slope: Tensor, singular: bool) -> Tensor:
    """``H^-1 g`` of every prompt. Without a ridge a constant is free, and so is a response that is never compared.

    With one, the elimination leaves the reward of such a response at exactly 0, so that best of n sees their tie.
    """
    if singular:
        found: Tensor = torch.linalg.pinv(curvature, hermitian=True, rtol=1e-13) @ slope.unsqueeze(-1)
    else:
        found = torch.cholesky_solve(slope.unsqueeze(-1), torch.linalg.cholesky(curvature))
    return found.squeeze(-1)


def tilted_to(reference: EnumerablePolicy, reward: Tensor, kl: float | Tensor) -> TabularPolicy:
    """``pi_ref exp(reward / beta)`` with each prompt's own beta such that its ``KL(pi || pi_ref)`` is ``kl`` nats.

    The reward may be any: learnt, worst of several, gold. Where even beta near 0 stays closer, the policy is the one of
    the smallest beta, with less KL.

    Args:
        kl: nats, >= 0; one number, or one a prompt, shape ``(prompts,)``.

    >>> reference = TabularPolicy.uniform(prompts=1, responses=3)
    >>> policy = tilted_to(reference, torch.tensor([[0.0, 1.0, 2.0]]), kl=0.2)
    >>> [round(share, 4) for share in policy.log_probs().exp()[0].tolist()]
    [0.1151, 0.2667, 0.6182]
    """
    table = reference.log_probs().detach()
    wanted = torch.as_tensor(kl, dtype=torch.float64).expand(len(table)).unsqueeze(-1)
    low = torch.full((len(table), 1), -8.0, dtype=torch.float64)
    high = torch.full_like(low, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        tilted = (table + middle.exp() * reward).log_softmax(-1)
        below = (tilted.exp() * (tilted - table)).sum(-1, keepdim=True) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return TabularPolicy(table + low.exp() * reward)
