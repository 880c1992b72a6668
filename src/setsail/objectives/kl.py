"""Estimators of the KL divergence between policy and reference, each under its own name.

``k1`` and ``k3`` are elementwise: give them per-token log-probs and sum over the completion for a
sequence-level figure. The forward direction, KL(pi_ref || pi), needs completions drawn from the *reference*.
"""

from __future__ import annotations

from torch import Tensor


def k1(logp: Tensor, logq: Tensor) -> Tensor:
    """``log p - log q`` at samples of p: unbiased for KL(p || q), may be negative. Nats, any shape."""
    return logp - logq


def k3(logp: Tensor, logq: Tensor) -> Tensor:
    """``q/p - 1 - log(q/p)`` at samples of p: unbiased for KL(p || q) token by token, never negative.

    For numbers to look at; its *gradient* is not that of the KL.
    """
    log_ratio = logq - logp
    return log_ratio.exp() - 1 - log_ratio


def forward_kl_sampled(policy: Tensor, reference: Tensor) -> Tensor:
    """``log pi_ref(y) - log pi(y)`` for ``y ~ pi_ref``: unbiased for KL(pi_ref || pi), value and gradient.

    Args:
        policy: log pi(y|x) of completions drawn from the reference, shape ``(completions,)``, nats, with gradient.
        reference: log pi_ref(y|x) of the same.

    Returns:
        Shape ``(completions,)``; single values may be negative, the mean estimates the KL. The gradient is
        ``-grad log pi(y)``.

    Assumption: the completions are the *reference's*. With completions of the policy the expected gradient is
    zero, and with data set answers it is plain likelihood training that ignores the reference.

    Source: arXiv 2606.31524 (the penalty of SAIL-RevKL; its direction is derived from the Fisher-matrix claim).
    """
    return reference.detach() - policy


def forward_kl_full(policy: Tensor, reference: Tensor) -> Tensor:
    """Exact KL(pi_ref(.|prefix) || pi(.|prefix)) at each position; never negative.

    Args:
        policy, reference: log-probs over the vocabulary, shape ``(..., vocabulary)``, at prefixes drawn from the
            reference. Summed over positions, the expectation over reference completions is the sequence KL.

    Returns:
        Shape ``(...)``, nats.
    """
    reference = reference.detach()
    return (reference.exp() * (reference - policy)).sum(-1)


def reverse_kl_full(policy: Tensor, reference: Tensor) -> Tensor:
    """Exact KL(pi(.|prefix) || pi_ref(.|prefix)) at each position; never negative.

    Args:
        policy, reference: log-probs over the vocabulary, shape ``(..., vocabulary)``, at given prefixes.

    Returns:
        Shape ``(...)``, nats. Its gradient is that of the next-token KL with the prefixes held fixed; the gradient of
        the KL of whole completions also moves the prefixes.

    >>> import torch
    >>> even, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    >>> round(reverse_kl_full(even, sure).item(), 6)
    0.143841
    """
    return (policy.exp() * (policy - reference.detach())).sum(-1)
