"""Policy gradients on groups: REINFORCE, RLOO, GRPO. The losses are surrogates; only their gradients have a meaning.

Legend: ``groups`` G, ``K`` completions of one prompt, drawn independently from the policy. ``r`` is a completion's
reward, ``h = log pi(y|x) - log pi_ref(y|x)`` its log-ratio (nats), ``s = grad log pi(y|x)`` its score,
``rho = pi(y|x) / pi_old(y|x)`` its importance ratio to the policy that drew it, of the whole completion.
``J = E[r] - beta KL(pi || pi_ref)`` is what RLHF maximizes. Log-probs are sums over tokens, never means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.objectives.kl import k1, k3
from setsail.objectives.records import GroupLogProbs, check_not_negative, check_positive, check_values


def reinforce(logps: GroupLogProbs, values: Tensor, beta: float = 0.1, baseline: Tensor | float = 0.0) -> Tensor:
    """REINFORCE with the KL penalty in the reward and a baseline of the caller's.

        loss = - mean_k sg(r_k - beta h_k - b) log pi(y_k)

    Args:
        logps: log-probs of the completions, nats; samples of the current policy at temperature 1.
        values: rewards, shape ``(groups, K)``, constants; K may be 1.
        beta: strength of the KL penalty, >= 0.
        baseline: b, a number or one a group, shape ``(groups,)``, in units of the reward. It must not depend on the
            group's own completions: a running mean of earlier batches, a value model of the prompt, or
            :func:`setsail.objectives.leave_one_out` over the groups' means. The mean of the group itself shrinks the
            gradient by (K - 1)/K; :func:`rloo` is the one that leaves each completion out of its own baseline.

    Returns:
        Surrogate of each group, shape ``(groups,)``. Its value has no meaning; the expectation of its gradient is
        minus the gradient of J, whatever the baseline, which only changes the variance.

    Raises:
        ValueError: beta < 0; values or baseline of another shape; values not finite.

    Source: Williams, Machine Learning 8, 1992; for language models arXiv 2402.14740.

    >>> record = GroupLogProbs(torch.tensor([[-2.0]]), torch.tensor([[-2.0]]))
    >>> reinforce(record, torch.tensor([[3.0]]), baseline=1.0).item()
    4.0
    """
    check_not_negative("beta", beta)
    check_values(values, logps, at_least=1)
    return score_surrogate(logps, above_baseline(_penalized(logps, values, beta), baseline))


def rloo(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """REINFORCE with the mean of the group's *other* completions as baseline.

        loss = - mean_k sg(R_k - mean_{j != k} R_j) log pi(y_k),   R = r - beta h

    Args:
        logps: log-probs of the completions, nats; samples of the current policy at temperature 1.
        values: rewards, shape ``(groups, K)``, constants; a constant added to a group changes nothing.
        beta: strength of the KL penalty, >= 0.

    Returns:
        Surrogate of each group, shape ``(groups,)``. Its value has no meaning; the expectation of its gradient is
        minus the gradient of J.

    Raises:
        ValueError: beta < 0; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2402.14740; the KL penalty stands in the reward, as there.

    >>> record = GroupLogProbs(torch.tensor([[-2.0, -1.0]], requires_grad=True), torch.tensor([[-2.0, -1.0]]))
    >>> rloo(record, torch.tensor([[3.0, 1.0]])).sum().backward()
    >>> record.policy.grad.tolist()
    [[-1.0, 1.0]]
    """
    check_not_negative("beta", beta)
    check_values(values, logps)
    reward = _penalized(logps, values, beta)
    count = reward.shape[-1]
    return score_surrogate(logps, (reward - reward.mean(-1, keepdim=True)) * count / (count - 1))


def grpo(
    logps: GroupLogProbs,
    values: Tensor,
    beta: float = 0.04,
    clip: float = 0.2,
    scale_rewards: bool = True,
    old_policy: Tensor | None = None,
) -> Tensor:
    """Group-relative policy optimization on whole completions: normalized rewards, a clipped ratio, a KL term.

        loss = mean_k [ -min(rho_k A_k, clip(rho_k, 1 - eps, 1 + eps) A_k) + beta (exp(-h_k) - 1 + h_k) ]
        A_k = (r_k - mean(r)) / (std(r) + 1e-4)

    Args:
        logps: log-probs of the completions, nats.
        values: rewards, shape ``(groups, K)``, constants; a constant added to a group changes nothing, and with
            ``scale_rewards`` neither does a factor (up to the 1e-4).
        beta: coefficient of the k3 estimator of the KL, >= 0; .04 in the paper.
        clip: eps, > 0.
        scale_rewards: divide by the group's standard deviation (with K - 1). Without it, the first step's reward
            part is (K - 1)/K times that of :func:`rloo` at beta 0 (arXiv 2503.20783 argues for leaving it out).
        old_policy: log-probs when the completions were drawn, shape ``(groups, K)``; None = they are samples of the
            current policy, every ratio is 1 and nothing is clipped.

    Returns:
        Surrogate of each group, shape ``(groups,)``. Its value has no meaning. The k3 term has the KL's value, but for
        samples of the policy the expectation of its gradient is that of KL(pi_ref || pi), the other direction.

    Raises:
        ValueError: beta < 0 or clip <= 0; values or old_policy of another shape; values not finite or fewer than two.

    Source: arXiv 2402.03300, equations 3 and 4. Deviations: ratio, clip and k3 are the whole completion's instead of
    each token's, and log-probs are summed instead of averaged over the completion's length, so that no answer's tokens
    weigh less because it is long; ratios of long completions leave the clip range sooner, and k3 grows like
    ``exp(-h)``, so the policy must stay near both. On policy and at beta 0 the gradient is the original's without its
    1/length weights.

    >>> record = GroupLogProbs(torch.tensor([[-2.0, -1.0]], requires_grad=True), torch.tensor([[-2.0, -1.0]]))
    >>> grpo(record, torch.tensor([[3.0, 1.0]]), scale_rewards=False).sum().backward()
    >>> record.policy.grad.tolist()
    [[-0.5, 0.5]]
    """
    check_not_negative("beta", beta)
    check_positive("clip", clip)
    check_values(values, logps)
    advantage = values - values.mean(-1, keepdim=True)
    if scale_rewards:
        # The paper divides by the bare deviation; equal rewards must give 0, not 0 / 0.
        advantage = advantage / (values.std(-1, keepdim=True) + 1e-4)
    ratio = (logps.policy - at_sampling(logps, old_policy)).exp()
    gain = pessimistic(advantage.detach(), ratio, 1 - clip, 1 + clip)
    return (beta * k3(logps.policy, logps.reference) - gain).mean(-1)


def at_sampling(logps: GroupLogProbs, old_policy: Tensor | None) -> Tensor:
    """Log-probs when the completions were drawn: ``old_policy``, or the current ones where none is given. No gradient.

    Raises:
        ValueError: old_policy of another shape than the completions.
    """
    old_policy = logps.policy if old_policy is None else old_policy
    if old_policy.shape != logps.policy.shape:
        raise ValueError(
            f"old_policy must hold the log-prob of each completion when it was drawn, shape "
            f"{tuple(logps.policy.shape)}, got {tuple(old_policy.shape)}; sum over tokens first"
        )
    return old_policy.detach()


def pessimistic(weight: Tensor, value: Tensor, low: float, high: float) -> Tensor:
    """``min(weight value, weight clip(value, low, high))``: no gain from moving the value beyond the range.

    >>> pessimistic(torch.tensor([1.0, -1.0]), torch.tensor([3.0, 3.0]), 0.5, 1.5).tolist()
    [1.5, -3.0]
    """
    return torch.minimum(weight * value, weight * value.clamp(low, high))


def score_surrogate(logps: GroupLogProbs, weight: Tensor) -> Tensor:
    """``- mean_k sg(weight_k) log pi(y_k)``, shape ``(groups,)``: its gradient is ``- mean_k weight_k s_k``."""
    return -(weight.detach() * logps.policy).mean(-1)


def above_baseline(values: Tensor, baseline: Tensor | float) -> Tensor:
    """Values minus a number, or minus one number a group.

    Raises:
        ValueError: the baseline is a tensor of another shape than ``(groups,)``.
    """
    if not isinstance(baseline, Tensor) or baseline.dim() == 0:
        return values - baseline
    if baseline.shape != values.shape[:1]:
        raise ValueError(
            f"baseline must be a number or one number a group, shape {tuple(values.shape[:1])}, "
            f"got {tuple(baseline.shape)}"
        )
    return values - baseline.unsqueeze(-1)


def _penalized(logps: GroupLogProbs, values: Tensor, beta: float) -> Tensor:
    """``r - beta h``: the k1 estimator of the KL, inside the reward."""
    return values - beta * k1(logps.policy, logps.reference)
