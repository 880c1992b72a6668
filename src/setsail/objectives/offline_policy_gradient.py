"""A-LoL: policy gradient on logged completions. Legend as in :mod:`setsail.objectives.policy_gradient`, but the
completions come from the reference policy, or from data that stands for it.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from setsail.objectives.policy_gradient import above_baseline, score_surrogate
from setsail.objectives.records import GroupLogProbs, check_not_negative, check_positive, check_values


def a_lol(
    logps: GroupLogProbs,
    values: Tensor,
    beta: float = 0.0,
    baseline: Tensor | float = 0.0,
    importance_ratio: bool = True,
    clip: float | None = 0.9,
) -> Tensor:
    """Advantage leftover lunch: imitate logged completions in proportion to how far they beat the reference's mean.

        loss = mean_k [ - sg(A_k w_k) log pi(y_k) + beta h_k ]
        A = max(r - V, 0),   w = clip(pi / pi_ref, 1 - eps, 1 + eps)

    ==================  ==========================================================
    A-LoL               the defaults
    A-LoL ref-free      ``importance_ratio=False``
    A-LoL KL            ``importance_ratio=False`` and ``beta > 0``
    R-LoL               ``baseline=0`` and rewards that are not negative
    ==================  ==========================================================

    Args:
        logps: log-probs of the completions, nats; completions of the reference, or of a data set. K may be 1.
        values: rewards, shape ``(groups, K)``, constants.
        beta: coefficient of the log-ratio, >= 0.
        baseline: V(x), the expected reward of the *reference*, a number or one a group, shape ``(groups,)``, in the
            units of the rewards: a value model fitted to the reference's own completions.
        importance_ratio: weigh each completion by its ratio to the reference; False = 1.
        clip: eps, > 0, .9 in the paper; None = the ratio is not clipped.

    Returns:
        Surrogate of each group, shape ``(groups,)``; without importance ratio and beta its value is a weighted
        negative log-likelihood, otherwise it has no meaning. Unclipped, and with completions of the reference, the
        expectation of its gradient is minus that of ``E_pi[A]``; ref-free, it leads to ``pi_ref A / Z``. Where
        pi = pi_ref all ratios are 1. Completions that do not beat V give nothing: leave them out of the batch.

    Raises:
        ValueError: beta < 0 or clip <= 0; values or baseline of another shape; values not finite.

    Source: arXiv 2305.14718. The variant with a ratio of each token needs token log-probs and is not here. As
    published, the log-ratio is taken on logged completions, so that its gradient is ``beta s`` and only lowers every
    advantage by beta; on the reference's completions it *increases* the distance from the reference.

    >>> import torch
    >>> record = GroupLogProbs(torch.tensor([[-3.0]]), torch.tensor([[-3.0]]))
    >>> a_lol(record, torch.tensor([[0.75]]), baseline=0.25).item()
    1.5
    """
    check_not_negative("beta", beta)
    if clip is not None:
        check_positive("clip", clip)
    check_values(values, logps, at_least=1)
    weight = functional.relu(above_baseline(values, baseline))
    log_ratio = logps.log_ratio()
    if importance_ratio:
        bound = math.inf if clip is None else clip
        weight = weight * log_ratio.exp().clamp(1 - bound, 1 + bound)
    return (beta * log_ratio).mean(-1) + score_surrogate(logps, weight)
