"""One prompt, n responses ("arms"): policies as log-probs of shape (n,), every pair listed, minimizers exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import GroupLogProbs

ROCK_PAPER_SCISSORS = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)
"""``P[i, j]``, the probability that response i is preferred to response j."""


def numbers(*values: float) -> Tensor:
    """A float64 vector."""
    return torch.tensor(values, dtype=torch.float64)


def random_game(arms: int, name: str) -> Tensor:
    """A random preference matrix: ``P[i, j] + P[j, i] = 1``, 1/2 on the diagonal."""
    upper = torch.from_numpy(stream(0, "game", name).random((arms, arms))).triu(1)
    return upper + (1 - upper).triu(1).T + 0.5 * torch.eye(arms, dtype=torch.float64)


def every_pair(values: Tensor) -> Tensor:
    """``(values_i, values_j)`` of every ordered pair, shape ``(n * n, 2)``, j fastest."""
    return torch.stack((values.repeat_interleave(len(values)), values.repeat(len(values))), -1)


def groups_of_two(policy: Tensor, reference: Tensor) -> GroupLogProbs:
    """Every ordered pair of arms as a group of two, in the order of :func:`every_pair`."""
    return GroupLogProbs(every_pair(policy), every_pair(reference))


def chance(first: Tensor, second: Tensor) -> Tensor:
    """Probability of every ordered pair when the two are drawn independently, shape ``(n * n,)``."""
    return torch.outer(first, second).flatten()


def minimizer(loss: Callable[[Tensor], Tensor], arms: int, tolerance: float = 1e-12) -> Tensor:
    """The policy (log-probs) that minimizes ``loss(log-probs)`` over all policies: Newton's method in the logits."""
    logits = torch.zeros(arms, dtype=torch.float64)

    def of_logits(logits: Tensor) -> Tensor:
        return loss(logits.log_softmax(-1))

    for _ in range(100):
        slope = torch.autograd.functional.jacobian(of_logits, logits)
        if slope.abs().max() <= tolerance:
            return logits.log_softmax(-1)
        curvature = torch.autograd.functional.hessian(of_logits, logits)
        # A constant added to all logits changes nothing: the pseudoinverse leaves that direction alone.
        step = torch.linalg.pinv(curvature, hermitian=True) @ slope
        while of_logits(logits - step) > of_logits(logits) + 1e-14:
            step = step / 2
        logits = logits - step
    raise AssertionError(f"no minimum found: the gradient is still {slope.tolist()}")
