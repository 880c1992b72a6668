"""Best of n: the exact law of keeping the best of n draws, its KL, and its value estimated from more draws.

Axis legend: ``prompts``, ``responses``, ``N`` scored draws. Log-probs and KL in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setsail.lab.exact import reverse_kl
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


def best_of_n_policy(policy: EnumerablePolicy, reward: Tensor, n: int) -> TabularPolicy:
    """The policy that draws n responses and returns one of the highest reward.

        pi_n(y) = pi(y) / m(y) * [F(y)^n - (F(y) - m(y))^n]

    with F(y) the probability of a reward of at most r(y), and m(y) that of exactly r(y). Which of several best draws is
    returned does not matter as long as it is not chosen by what it says (the first drawn, or one at random): within
    a reward, the shares are the policy's. Only the order of the rewards counts.

    Best of n, taken t times (each round draws from the result of the one before), is best of ``n^t``: that is t
    rounds of RAFT with a perfect fit.

    Args:
        policy: draws the responses, at temperature 1.
        reward: shape ``(prompts, responses)``; equal rewards are ties.
        n: number of draws, >= 1.

    Returns:
        A policy with a table of its own (no gradient flows to ``policy``); its log-probs are accurate for the
        unlikeliest responses as well.

    Raises:
        ValueError: n < 1, or the reward does not fit the policy or is not finite.

    Source: derived; order statistics of n independent draws. Rounds: arXiv 2304.06767.

    >>> policy = TabularPolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log())
    >>> best = best_of_n_policy(policy, torch.tensor([[0.0, 1.0, 2.0, 3.0]]), n=4)
    >>> [round(share, 4) for share in best.log_probs().exp()[0].tolist()]
    [0.0256, 0.2145, 0.416, 0.3439]
    """
    _check_count(n)
    table = policy.log_probs().detach()
    if reward.shape != table.shape or not bool(reward.isfinite().all()):
        raise ValueError(
            f"the reward must hold one finite number a response, shape {tuple(table.shape)}, got {tuple(reward.shape)}"
        )
    mine, theirs = reward.unsqueeze(-1), reward.unsqueeze(-2)
    up_to = torch.where(theirs <= mine, table.unsqueeze(-2), -math.inf).logsumexp(-1)
    equal = torch.where(theirs == mine, table.unsqueeze(-2), -math.inf).logsumexp(-1)
    # F^n - (F - m)^n = F^n (1 - (1 - m / F)^n), which keeps the digits of a small m.
    share = (equal - up_to).clamp(max=0.0).exp()
    reached = -torch.expm1(n * torch.log1p(-share))
    return TabularPolicy(table - equal + n * up_to + reached.log())


def best_of_n_kl(policy: EnumerablePolicy, reward: Tensor, n: int) -> float:
    """``KL(best of n || policy)``, exactly, mean over prompts, nats; the arguments of :func:`best_of_n_policy`.

    On a finite set of responses it lies below :func:`best_of_n_kl_bound`, and however large n is it stays below
    ``-log`` of the probability of the best reward.

    >>> policy = TabularPolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log())
    >>> round(best_of_n_kl(policy, torch.tensor([[0.0, 1.0, 2.0, 3.0]]), n=4), 5)
    0.58711
    """
    return reverse_kl(best_of_n_policy(policy, reward, n), policy).item()


def best_of_n_kl_bound(n: int) -> float:
    """``log n - (n - 1) / n``, nats: the KL of best of n if no two draws ever have the same reward.

    An upper bound otherwise, and a loose one where the policy has few likely responses: do not report it as the KL of
    a small discrete policy.

    Raises:
        ValueError: n < 1.

    >>> [round(best_of_n_kl_bound(n), 6) for n in (1, 2, 4, 16)]
    [0.0, 0.193147, 0.636294, 1.835089]
    """
    _check_count(n)
    return math.log(n) - (n - 1) / n


def best_of_n_estimate(proxy: Tensor, gold: Tensor, n: int) -> Tensor:
    """Unbiased estimate of the gold reward of best of n by the proxy, from N >= n draws.

        sum_{i = n}^{N} C(i - 1, n - 1) / C(N, n) gold_(i),    draws in ascending order of the proxy

    That is the mean, over all subsets of n of the N draws, of the gold reward of the subset's best by the proxy.
    Draws of equal proxy share their weights equally, as if ties were broken at random, so the order of the draws
    carries no meaning.

    Args:
        proxy: the reward that selects, shape ``(..., N)``.
        gold: the reward that judges, the same shape.
        n: how many draws the best is taken of.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: shapes that differ, n < 1, or fewer draws than n.

    Source: arXiv 2310.02743, evaluation of best-of-n.

    >>> best_of_n_estimate(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0]), n=2)  # (2 + 3 + 3) / 3
    tensor(2.6667, dtype=torch.float64)
    """
    _check_count(n)
    if proxy.shape != gold.shape or proxy.dim() < 1:
        raise ValueError(
            f"proxy and gold need one number a draw, shape (..., N), got {tuple(proxy.shape)} and {tuple(gold.shape)}"
        )
    draws = proxy.shape[-1]
    if draws < n:
        raise ValueError(f"best of {n} cannot be estimated from {draws} draws; score at least {n}")
    # chance[k]: that a random subset of n lies within k given draws.
    chance = torch.tensor([math.comb(k, n) / math.comb(draws, n) for k in range(draws + 1)], dtype=torch.float64)
    mine, theirs = proxy.unsqueeze(-1), proxy.unsqueeze(-2)
    up_to, below = (theirs <= mine).sum(-1), (theirs < mine).sum(-1)
    weight = (chance[up_to] - chance[below]) / (up_to - below)
    return (weight * gold.to(torch.float64)).sum(-1)


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"best of n needs at least one draw, got n = {n}")
