"""Which completions of a group stand above which. Legend: ``groups`` G, ``K`` completions of one prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def differences(numbers: Tensor) -> Tensor:
    """``numbers_i - numbers_j`` of every pair of a group, shape ``(groups, K, K)`` from ``(groups, K)``.

    >>> differences(torch.tensor([[3.0, 1.0]])).tolist()
    [[[0.0, 2.0], [-2.0, 0.0]]]
    """
    return numbers.unsqueeze(-1) - numbers.unsqueeze(-2)


def places(scores: Tensor, values: Tensor, descending: bool) -> Tensor:
    """Place of each completion when its group is sorted by score, 0 = first, shape ``(groups, K)``.

    Equal scores, as at the reference, are sorted by value, highest first, in both directions: what is built on the
    places does not depend on the order in which completions are listed.

    >>> places(torch.tensor([[5.0, 7.0, 5.0]]), torch.tensor([[0.0, 1.0, 2.0]]), descending=True).tolist()
    [[2, 0, 1]]
    """
    by_value = values.argsort(dim=-1, descending=True, stable=True)
    by_score = scores.gather(-1, by_value).argsort(dim=-1, descending=descending, stable=True)
    return torch.argsort(by_value.gather(-1, by_score), dim=-1)
