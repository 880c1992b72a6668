"""Terms added to a loss: likelihood of preferred answers, and how spread out the next token is.

An added term is called as ``term(policy, reference)``. On completions both are log-probs of shape ``(completions,)``,
nats; on distributions both are next-token log-probs of shape ``(tokens, vocabulary)``. Only the policy's part carries
gradient.
"""

from __future__ import annotations

from torch import Tensor


def negative_log_likelihood(policy: Tensor, reference: Tensor) -> Tensor:
    """``-log pi(y)``, the likelihood part of RPO, CPO, ORPO and SLiC-HF. The reference is not read.

    Args:
        policy: log-probs of completions, shape ``(completions,)``, nats; divided by length first, nats a token.
        reference: log-probs of the same completions.

    Source: arXiv 2405.16436, the regularizer of its equation for RPO (there on sums and on means, at different scales);
    arXiv 2404.19733, 2401.08417, 2403.07691, 2305.10425.

    >>> import torch
    >>> negative_log_likelihood(torch.tensor([-2.0]), torch.tensor([0.0])).tolist()
    [2.0]
    """
    return -policy


def negative_entropy(policy: Tensor, reference: Tensor) -> Tensor:
    """``sum_v pi(v) log pi(v)`` of the next token at each position: minus its entropy, nats. The reference is not read.

    With a positive coefficient it keeps the policy spread out; its gradient is exact over the vocabulary at the given
    prefixes, which are held fixed.

    Args:
        policy: next-token log-probs, shape ``(tokens, vocabulary)``.
        reference: the same under the reference.

    Returns:
        Shape ``(tokens,)``, between ``-log vocabulary`` and 0.

    >>> import torch
    >>> even = torch.tensor([[0.5, 0.5]]).log()
    >>> round(negative_entropy(even, even).item(), 6)
    -0.693147
    """
    return (policy.exp() * policy).sum(-1)
