"""Weighted pairs: a distribution over what one training pair can be, every possibility listed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from setsail.objectives import LogProbs, implicit_preference
from setsail.policies.tabular import EnumerablePolicy


@dataclass(frozen=True, slots=True)
class WeightedPairs:
    """Every pair that can occur, with its probability. The only axis is ``pairs``.

    Attributes:
        prompt, first, second: indices of the prompt and its two responses.
        weight: probability of the pair; sums to 1. It may carry gradient (pairs drawn from a policy).
        p: probability that the first is preferred; None where the policy labels its own pairs.
    """

    prompt: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    p: Tensor | None = None

    def log_probs(self, policy: EnumerablePolicy, reference: EnumerablePolicy) -> LogProbs:
        """The record that objectives read, one entry a pair; only the policy's part carries gradient."""
        return policy.pair_log_probs(reference, self.prompt, self.first, self.second)

    def labeled(self, p: Tensor) -> WeightedPairs:
        """The same pairs with another preference."""
        return replace(self, p=p.detach())

    def self_labeled(self, policy: EnumerablePolicy, reference: EnumerablePolicy, beta: float) -> WeightedPairs:
        """The same pairs with the policy's own preference ``sigmoid(u)``, as a constant."""
        return self.labeled(implicit_preference(self.log_probs(policy, reference), beta))


def bradley_terry(reward: Tensor) -> Tensor:
    """``P[x, i, j] = sigmoid(reward[x, i] - reward[x, j])``, the probability that response i is preferred to j.

    Args:
        reward: shape ``(prompts, responses)``.

    Returns:
        Shape ``(prompts, responses, responses)``; ``P[x, i, j] + P[x, j, i] = 1``.

    >>> bradley_terry(torch.zeros(1, 2)).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    return torch.sigmoid(reward.unsqueeze(-1) - reward.unsqueeze(-2))


def policy_pairs(sampler: EnumerablePolicy, preference: Tensor | None = None) -> WeightedPairs:
    """Two independent responses of the sampler to a prompt drawn uniformly: every ordered pair.

    Args:
        sampler: who answers. The weights carry gradient into its parameters: an expectation over these pairs is then
            differentiated through the sampling as well. Give ``sampler.frozen()`` to hold the samples fixed.
        preference: ``P[x, i, j]``, shape ``(prompts, responses, responses)``; None = the policy labels itself.

    Raises:
        ValueError: the preference does not fit the policy.
    """
    table = sampler.log_probs()
    prompts, responses = table.shape
    if preference is not None and preference.shape != (prompts, responses, responses):
        raise ValueError(
            f"the preference must have shape {(prompts, responses, responses)} for this policy, "
            f"got {tuple(preference.shape)}"
        )
    grid = torch.cartesian_prod(torch.arange(prompts), torch.arange(responses), torch.arange(responses))
    prompt, first, second = grid.unbind(-1)
    weight = (table[prompt, first] + table[prompt, second]).exp() / prompts
    return WeightedPairs(
        prompt, first, second, weight, None if preference is None else preference[prompt, first, second]
    )


def dataset_pairs(rows: Tensor, p: Tensor) -> WeightedPairs:
    """The rows of a data set, equally likely.

    Args:
        rows: ``(prompt, first, second)`` indices, shape ``(rows, 3)``.
        p: probability that the first is preferred, shape ``(rows,)``.

    >>> dataset_pairs(torch.tensor([[0, 0, 1], [0, 2, 1]]), torch.tensor([1.0, 0.7])).weight.tolist()
    [0.5, 0.5]
    """
    prompt, first, second = rows.unbind(-1)
    return WeightedPairs(prompt, first, second, torch.full_like(p, 1 / len(rows), dtype=torch.float64), p)
