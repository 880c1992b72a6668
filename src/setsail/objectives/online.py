"""What changes when the pairs, or their labels, come from the policy itself (SAIL).

Legend: ``F = -loss``, ``s(y) = grad log pi(y|x)``. For completions drawn from the policy the gradient of the expected
loss has two parts: the objective's own (T2) and the response-score term ``E[loss * (s(y1) + s(y2))]`` (T1), which
:func:`online_correction` adds as a surrogate. For labels drawn from the policy it has the label-score term, which a
label ``p = sigmoid(u)`` that carries gradient brings by itself (:func:`self_labeled`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.objectives.labels import draw_preference, implicit_preference
from setsail.objectives.records import LogProbs, PairwiseObjective


def leave_one_out(loss: Tensor, prompts: Tensor | None = None, alone: float = 0.0) -> Tensor:
    """Baseline of each pair: the mean loss over the pairs of all *other* prompts. No gradient.

    Args:
        loss: loss of each pair of the *global* batch (all micro-batches, all processes), shape ``(pairs,)``.
        prompts: integer id of each pair's prompt; pairs of one prompt may share completions, so all of them
            are left out. None = every pair has its own prompt.
        alone: the baseline where no other prompt is there. It must not depend on the drawn completions
            (the loss of an undecided pair, ``u = 0``, is a good constant).

    Returns:
        Shape ``(pairs,)``. Because it does not depend on the pair's own completions, the expectation of
        ``(loss - b) (s(y1) + s(y2))`` is that of ``loss (s(y1) + s(y2))``. A mean that includes the pair itself
        would shrink it by (N-1)/N.

    >>> leave_one_out(torch.tensor([1.0, 2.0, 6.0])).tolist()
    [4.0, 3.5, 1.5]
    """
    loss = loss.detach()
    if prompts is None:
        prompts = torch.arange(loss.numel(), device=loss.device)
    if prompts.shape != loss.shape:
        raise ValueError(f"one prompt id a pair is needed, shape {tuple(loss.shape)}, got {tuple(prompts.shape)}")
    _, group = torch.unique(prompts, return_inverse=True)
    size = torch.zeros(loss.numel(), dtype=loss.dtype, device=loss.device).index_add(0, group, torch.ones_like(loss))
    total = torch.zeros_like(size).index_add(0, group, loss)
    others = loss.numel() - size[group]
    mean = (loss.sum() - total[group]) / others.clamp(min=1)
    return torch.where(others > 0, mean, torch.full_like(mean, alone))


def online_correction(
    loss: Tensor, logps: LogProbs, coefficient: float, baseline: Tensor | float, mask: Tensor | None = None
) -> Tensor:
    """Add the response-score term to the loss of pairs whose completions were drawn from the policy.

        loss + c * sg(loss - b) * (log pi(y1) + log pi(y2))

    Args:
        loss: loss of each pair under any objective, shape ``(pairs,)``.
        logps: log-probs of the same pairs; the completions are samples of the current policy, temperature 1,
            nothing truncated.
        coefficient: c. 1 gives the exact gradient of the expected loss; 0 returns ``loss`` itself.
        baseline: b, from :func:`leave_one_out`.
        mask: pairs that take part (for example those that finished), shape ``(pairs,)``; None = all. With a mask the
            term follows ``E[(loss - b) 1{mask}]``, which does depend on b; without one any b is right.

    Returns:
        A surrogate whose *gradient* is ``grad loss + c (loss - b) (s(y1) + s(y2))``; in the loss direction it
        lowers completions whose pair was predicted worse than average. Its value has no meaning: log the
        uncorrected loss.

    Source: arXiv 2406.15567, gradient of the upper-level objective. The published code adds a hook of the
    opposite sign divided by the log-prob; this is the derived term.

    >>> zero = torch.zeros(2)
    >>> record = LogProbs(zero, zero, zero, zero)
    >>> online_correction(torch.tensor([1.0, 2.0]), record, 0.0, 0.0).tolist()
    [1.0, 2.0]
    """
    if coefficient == 0:
        return loss
    advantage = (loss - baseline).detach()
    if mask is not None:
        advantage = advantage * mask.to(advantage.dtype)
    return loss + coefficient * advantage * (logps.policy_first + logps.policy_second)


def self_labeled(objective: PairwiseObjective, logps: LogProbs, beta: float = 0.1) -> Tensor:
    """The objective under the policy's own label, averaged over that label.

        loss = q loss(y1 preferred) + (1 - q) loss(y2 preferred),   q = sigmoid(u) with gradient

    For DPO this is the entropy of the implicit preference. A route's coefficient multiplies it. For plain DPO the
    expected gradient under q is zero for every pair, so that this equals scaling only the label-score term, which
    is how the paper's coefficients act; for other objectives it scales both parts.

    Args:
        objective: a pairwise objective with its parameters bound.
        logps: log-probs of the pairs.
        beta: beta of the implicit reward that labels.

    Returns:
        Loss of each pair, shape ``(pairs,)``; its gradient is that of the expected loss with the completions held
        fixed, label-score term included.

    Source: arXiv 2406.15567 (DDP and DPP); the label average is ours, same expectation with less variance.

    >>> from setsail.objectives import dpo
    >>> zero = torch.zeros(1)
    >>> round(self_labeled(dpo, LogProbs(zero, zero, zero, zero)).item(), 6)
    0.693147
    """
    return objective(logps, implicit_preference(logps, beta))


def self_labeled_sampled(
    objective: PairwiseObjective, logps: LogProbs, uniform: Tensor, coefficient: float, beta: float = 0.1
) -> Tensor:
    """The objective under *one* label drawn from the policy, with the label-score term as the paper samples it.

        loss - (c / 2) loss^2,   loss = objective(label),   label ~ Bernoulli(sigmoid(u))

    Only for objectives that are the label's negative log-likelihood, ``loss = -log q(label)`` (DPO without
    smoothing): there ``grad(-(c/2) loss^2) = -c loss grad loss`` is the label-score term. Its expectation is c
    times the gradient of :func:`self_labeled`; its variance is far larger.

    Args:
        objective: DPO with its beta bound.
        logps: log-probs of the pairs.
        uniform: one draw from [0, 1) a pair.
        coefficient: c >= 0.
        beta: beta of the implicit reward; must be the objective's own.

    Source: arXiv 2406.15567, sampled form of DDP and DPP.

    >>> from setsail.objectives import dpo
    >>> u = torch.tensor([7.0]); zero = torch.zeros(1)
    >>> round(self_labeled_sampled(dpo, LogProbs(u, zero, zero, zero), torch.zeros(1), 0.2).item(), 6)
    0.38693
    """
    label = draw_preference(implicit_preference(logps, beta), uniform)
    loss = objective(logps, label)
    return loss - (coefficient / 2) * loss.square()
