"""Gradient entanglement: why a step on a margin moves both completions of a pair the same way.

Axis legend: one pair; ``parameters`` as a list of tensors, norms and inner products over all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import DataError
from setsail.objectives import LogProbs, PairwiseObjective


@dataclass(frozen=True, slots=True, kw_only=True)
class Entanglement:
    """The gradients of one pair, and what a step of plain gradient descent does to its log-probs.

    With l_w, l_l the log-probs of the chosen (first) and the rejected (second) completion, g_w, g_l their gradients,
    d_w = -dL/dl_w and d_l = dL/dl_l, a step of size eta along -grad L changes, to first order in eta,

        l_w by eta (d_w |g_w|^2 - d_l <g_w, g_l>),    l_l by eta (d_w <g_w, g_l> - d_l |g_l|^2).

    Attributes:
        chosen, rejected: |g_w|^2 and |g_l|^2.
        inner: <g_w, g_l>; large where the completions share words, or the model takes them for the same.
        pull, push: d_w and d_l; not negative for an objective of preferences and a hard label. Their ratio is 1 for
            objectives of the margin alone (DPO, IPO, SLiC), and the completions' lengths, l/w, for SimPO.
    """

    chosen: float
    rejected: float
    inner: float
    pull: float
    push: float

    @property
    def cosine(self) -> float:
        """Of the angle between the two gradients; NaN where one vanishes."""
        norm = (self.chosen * self.rejected) ** 0.5
        return self.inner / norm if norm else float("nan")

    def changes(self, step: float) -> tuple[float, float]:
        """First-order changes of log pi(chosen) and log pi(rejected) by a gradient step of this size, nats."""
        chosen = self.pull * self.chosen - self.push * self.inner
        rejected = self.pull * self.inner - self.push * self.rejected
        return step * chosen, step * rejected

    def normalized_changes(self, step: float) -> tuple[float, float]:
        """The same for a step along :func:`normalized_direction`: never below 0, and never above 0.

        |g_w| (1 - cosine) and -|g_l| (1 - cosine); not those of the loss, whose slopes play no part.
        """
        apart = 1 - self.cosine
        return step * self.chosen**0.5 * apart, -step * self.rejected**0.5 * apart

    @property
    def chosen_rises(self) -> bool:
        """Whether a small step makes the chosen completion likelier: <g_w, g_l> < (d_w / d_l) |g_w|^2."""
        return self.changes(1.0)[0] > 0

    @property
    def rejected_falls(self) -> bool:
        """Whether a small step makes the rejected completion less likely: <g_w, g_l> < (d_l / d_w) |g_l|^2."""
        return self.changes(1.0)[1] < 0


def entanglement_of(
    objective: PairwiseObjective, logps: LogProbs, parameters: Sequence[Tensor], p: Tensor | None = None
) -> Entanglement:
    """The entanglement of one pair under an objective, by two backward passes through the policy.

    Args:
        objective: a loss of pairs, its parameters bound.
        logps: one pair; ``policy_first`` and ``policy_second`` with the graph that leads to the parameters, which is
            kept.
        parameters: what is trained.
        p: probability that the first is preferred, ``(1,)``; None = 1.

    Raises:
        DataError: another number of pairs than one, or log-probs that do not depend on the parameters.

    Source: arXiv 2410.13828, the gradient inner product condition.

    >>> from setsail.objectives import dpo
    >>> weight = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    >>> feature = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    >>> table, reference = (weight * feature).log_softmax(0), feature.new_zeros(1)
    >>> found = entanglement_of(dpo, LogProbs(table[:1], table[1:2], reference, reference), [weight])
    >>> found.chosen_rises, found.rejected_falls  # the margin grows, and the chosen completion falls
    (False, True)
    """
    if logps.policy_first.shape != (1,):
        raise DataError(f"{tuple(logps.policy_first.shape)} pairs: entanglement is of one pair, so take them in turn")
    chosen = _flat_gradient(logps.policy_first, parameters)
    rejected = _flat_gradient(logps.policy_second, parameters)
    first, second = (part.detach().requires_grad_() for part in (logps.policy_first, logps.policy_second))
    record = LogProbs(
        first,
        second,
        logps.reference_first.detach(),
        logps.reference_second.detach(),
        logps.length_first,
        logps.length_second,
    )
    slopes = torch.autograd.grad(objective(record, p).sum(), (first, second), allow_unused=True)
    pull, push = (0.0 if slope is None else slope.item() for slope in slopes)
    return Entanglement(
        chosen=(chosen @ chosen).item(),
        rejected=(rejected @ rejected).item(),
        inner=(chosen @ rejected).item(),
        pull=-pull,
        push=push,
    )


def normalized_direction(chosen: Sequence[Tensor], rejected: Sequence[Tensor]) -> list[Tensor]:
    """``g_w / |g_w| - g_l / |g_l|``: going along it, the chosen never falls and the rejected never rises.

    Each gradient is divided by its own norm, over all parameters together; dividing their difference would not do.

    Args:
        chosen, rejected: gradients of the two log-probs, one tensor a parameter.

    Raises:
        DataError: a gradient that is zero, which has no direction.

    Source: arXiv 2410.13828, pairwise normalized gradient descent.

    >>> [part.tolist() for part in normalized_direction([torch.tensor([3.0, 4.0])], [torch.tensor([0.0, 2.0])])]
    [[0.6000000238418579, -0.19999998807907104]]
    """
    norms = [torch.cat([part.flatten() for part in side]).norm() for side in (chosen, rejected)]
    if not all(norm > 0 for norm in norms):
        raise DataError("a completion whose gradient is zero: there is no direction that moves it")
    return [mine / norms[0] - theirs / norms[1] for mine, theirs in zip(chosen, rejected, strict=True)]


def _flat_gradient(logp: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    if not logp.requires_grad:
        raise DataError("log-probs without a graph: compute them from the parameters, outside of torch.no_grad()")
    found = torch.autograd.grad(logp.sum(), list(parameters), retain_graph=True, allow_unused=True)
    if all(part is None for part in found):
        raise DataError("log-probs that do not depend on the parameters given: their gradient is nowhere")
    parts = [
        torch.zeros_like(parameter).flatten() if part is None else part.flatten()
        for part, parameter in zip(found, parameters, strict=True)
    ]
    return torch.cat(parts).double()
