"""Exact objectives of arXiv 2406.15567 on enumerable policies: sums instead of samples.

Legend: ``u = beta * d`` with d the log-ratio difference of the two responses, ``F = log sigmoid(u)`` for a pair whose
first is preferred, H the entropy of a coin. All values in nats, all of them differentiable in the policy.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from setsail.lab.pairs import WeightedPairs, policy_pairs
from setsail.objectives import LogProbs, PairwiseObjective, dpo, preference_entropy
from setsail.policies.tabular import EnumerablePolicy


def risk(
    policy: EnumerablePolicy, reference: EnumerablePolicy, pairs: WeightedPairs, objective: PairwiseObjective
) -> Tensor:
    """``E_pairs[objective(logps, p)]``, a scalar.

    The gradient flows through the log-probs and, where the pairs' weights carry it, through the distribution of the
    pairs: that second part is the response-score term.
    """
    return (pairs.weight * objective(pairs.log_probs(policy, reference), pairs.p)).sum()


def oracle_objective(
    policy: EnumerablePolicy, reference: EnumerablePolicy, preference: Tensor, beta: float = 0.1
) -> Tensor:
    """``J = E_{y1, y2 ~ pi} E_{label ~ P} [log sigmoid(u)]``, to be maximized; at most 0.

    Args:
        policy, reference: over the same prompts and responses.
        preference: ``P[x, i, j]``, shape ``(prompts, responses, responses)``; does not depend on the policy.
        beta: temperature of the implicit reward.

    Returns:
        Scalar. Its gradient is ``E[F (s1 + s2)] + E[grad F]``: responses are drawn from the policy, so they move.

    Source: arXiv 2406.15567, the upper-level objective after its reduction to one level.

    >>> import torch
    >>> from setsail.lab.pairs import bradley_terry
    >>> from setsail.policies.tabular import TabularPolicy
    >>> same = TabularPolicy.uniform(prompts=1, responses=3)
    >>> round(oracle_objective(same, same, bradley_terry(torch.tensor([[0.0, 1.0, -1.0]]))).item(), 6)
    -0.693147
    """
    return -risk(policy, reference, policy_pairs(policy, preference), partial(dpo, beta=beta))


def self_objective(policy: EnumerablePolicy, reference: EnumerablePolicy, beta: float = 0.1) -> Tensor:
    """``J' = -E_{y1, y2 ~ pi} [H(sigmoid(u))]``: the policy labels its own responses; to be maximized.

    The reference is a stationary point (every preference is 1/2 there), so this alone cannot start training.

    Source: arXiv 2406.15567, self-improvement (DPP).
    """
    return -label_entropy(policy, reference, policy_pairs(policy), beta)


def label_entropy(
    policy: EnumerablePolicy, reference: EnumerablePolicy, pairs: WeightedPairs, beta: float = 0.1
) -> Tensor:
    """``E_pairs[H(sigmoid(u))]``: how undecided the implicit preference is about these pairs, nats, in [0, log 2]."""

    def entropy(logps: LogProbs, p: Tensor | None) -> Tensor:
        return preference_entropy(logps, beta)

    return risk(policy, reference, pairs, entropy)


def ddp_objective(
    policy: EnumerablePolicy,
    reference: EnumerablePolicy,
    pairs: WeightedPairs,
    weight: float = 0.4,
    coefficient: float = 0.2,
    beta: float = 0.1,
) -> Tensor:
    """``(1 - r) E_D[DPO] + r rho E_D[H(sigmoid(u))]``: the whole DDP objective in closed form; a loss.

    Args:
        pairs: the data set, with its preferences.
        weight: r, the share of rows that the policy labels again.
        coefficient: rho.

    Source: arXiv 2406.15567 (DDP), labels averaged.
    """
    offline = risk(policy, reference, pairs, partial(dpo, beta=beta))
    return (1 - weight) * offline + weight * coefficient * label_entropy(policy, reference, pairs, beta)


def forward_kl(policy: EnumerablePolicy, reference: EnumerablePolicy) -> Tensor:
    """``KL(pi_ref || pi)``, mean over prompts, nats; gradient in the policy. The penalty of arXiv 2606.31524."""
    frozen = reference.log_probs().detach()
    return (frozen.exp() * (frozen - policy.log_probs())).sum(-1).mean()


def reverse_kl(policy: EnumerablePolicy, reference: EnumerablePolicy) -> Tensor:
    """``KL(pi || pi_ref)``, mean over prompts, nats; gradient in the policy. What RLHF pays for reward."""
    table = policy.log_probs()
    return (table.exp() * (table - reference.log_probs().detach())).sum(-1).mean()


def expected_reward(policy: EnumerablePolicy, reward: Tensor) -> Tensor:
    """``E_x E_{y ~ pi}[reward[x, y]]``, a scalar; ``reward`` has shape ``(prompts, responses)``."""
    return (policy.log_probs().exp() * reward).sum(-1).mean()
