"""DPO with something else inside the sigmoid: an anchor, a length, a share of the reference, a bias, an offset.

Legend: ``h(y) = log pi(y|x) - log pi_ref(y|x)``, ``d = h(w) - h(l)``, shape ``(pairs,)``, nats; ``w`` is the preferred
completion, ``l`` the other, ``|y|`` a number of tokens. Each pairwise equation is for a hard label; a soft one averages
both. :func:`margin_dpo` reads ``groups`` of two completions with a number each instead.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from setsail.objectives.contrastive import contrast
from setsail.objectives.records import GroupLogProbs, LogProbs, check_positive
from setsail.objectives.soft_labels import label_average, over_both_labels


def dpo_positive(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, penalty: float = 50.0) -> Tensor:
    """DPO-positive (DPOP): not satisfied while the chosen completion is less likely than under the reference.

        loss = - log sigmoid(beta (d - penalty max(0, -h(w))))

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: strength of the KL penalty to the reference, > 0.
        penalty: lambda of the paper, >= 0; 0 gives DPO.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Where ``h(w) < 0`` its gradient is
        ``-beta sigmoid(-z) ((1 + penalty) s_w - s_l)``, z the logit; elsewhere it is DPO's.

    Raises:
        ValueError: beta <= 0, penalty < 0, p of another shape or outside [0, 1].

    Source: arXiv 2402.13228, the DPOP loss; penalty 50 as in the released settings of arXiv 2410.13828.

    >>> import torch
    >>> logps = LogProbs(torch.tensor([-0.5]), torch.tensor([-2.0]), torch.zeros(1), torch.zeros(1))
    >>> round(dpo_positive(logps).item(), 6)
    2.441092
    """
    check_positive("beta", beta)
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be 0 (plain DPO) or a positive number, got {penalty}")

    def first_preferred(pair: LogProbs) -> Tensor:
        fall = functional.relu(pair.reference_first - pair.policy_first)
        return -functional.logsigmoid(beta * (pair.log_ratio_difference() - penalty * fall))

    return over_both_labels(first_preferred, logps, p)


def length_regularized_dpo(
    logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, length_weight: float = 0.2
) -> Tensor:
    """Length-regularized DPO (R-DPO): a pair whose winner is longer counts as partly explained by its length.

        loss = - log sigmoid(beta d + length_weight (|w| - |l|))

    The length term is *added*: a longer winner needs less margin and teaches less, a shorter winner more. Subtracted,
    it would reward length.

    Args:
        logps: log-probs of the pairs, nats, with lengths.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: strength of the KL penalty to the reference, > 0.
        length_weight: alpha of the paper, logits a token, >= 0; 0 gives DPO. Pairs whose lengths differ by many times
            ``1 / length_weight`` say nothing (winner longer) or dominate (winner shorter).

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(-z) (s_w - s_l)``, z the logit.

    Raises:
        ValueError: beta <= 0, length_weight < 0, no lengths in the record, p of another shape or outside [0, 1].

    Source: arXiv 2403.19159, the regularized loss. 0.2 is a released setting for summaries of some 40 tokens (arXiv
    2410.13828); answers of hundreds of tokens want a smaller one.

    >>> import torch
    >>> zero, lengths = torch.zeros(1), (torch.tensor([30]), torch.tensor([20]))
    >>> round(length_regularized_dpo(LogProbs(zero, zero, zero, zero, *lengths)).item(), 6)
    0.126928
    """
    check_positive("beta", beta)
    if not 0 <= length_weight < float("inf"):
        raise ValueError(
            f"length_weight must be 0 (plain DPO) or a positive number, got {length_weight}; a negative one would "
            "reward length"
        )
    if logps.length_first is None or logps.length_second is None:
        raise ValueError("length regularization needs length_first and length_second in the record; pass both")
    u = beta * logps.log_ratio_difference()
    z = u + length_weight * (logps.length_first - logps.length_second).to(u.dtype)
    return label_average(-functional.logsigmoid(z), -functional.logsigmoid(-z), p, logps)


def length_normalized_dpo(logps: LogProbs, p: Tensor | None = None, beta: float = 5.0) -> Tensor:
    """Length-normalized DPO: each log-ratio divided by its completion's number of tokens.

        loss = - log sigmoid(beta (h(w) / |w| - h(l) / |l|))

    Args:
        logps: log-probs of the pairs, nats, with lengths.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the mean log-ratios, > 0; far larger than DPO's, since these are nats a *token*.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(-u) (s_w / |w| - s_l / |l|)``, u the
        logit.

    Raises:
        ValueError: beta <= 0, no lengths in the record, p of another shape or outside [0, 1].

    Source: arXiv 2411.15124 (length-normalized DPO, beta 5); ``sigmoid_norm`` of TRL.

    >>> import torch
    >>> lengths = torch.tensor([2]), torch.tensor([4])
    >>> logps = LogProbs(torch.tensor([-4.0]), torch.tensor([-12.0]), torch.zeros(1), torch.zeros(1), *lengths)
    >>> round(length_normalized_dpo(logps, beta=1.0).item(), 6)
    0.313262
    """
    check_positive("beta", beta)
    u = beta * logps.per_token().log_ratio_difference()
    return label_average(-functional.logsigmoid(u), -functional.logsigmoid(-u), p, logps)


def dpo_gamma(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, reference_weight: float = 1.0) -> Tensor:
    """DPO with a share of the reference, from DPO (1) to reference-free (0).

        loss = - log sigmoid(beta [(lp(w) - lp(l)) - reference_weight (lp_ref(w) - lp_ref(l))])

    With ``c = lp_ref(l) - lp_ref(w)``, how far the reference ranks the pair wrong, the policy ranks it right
    (``lp(w) >= lp(l)``) if and only if its *DPO* loss is at most ``-log sigmoid(beta c)``: at beta 0.1 a pair with c of
    30 nats has to come down to 0.0486. A smaller share of the reference asks for less.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the margin, > 0.
        reference_weight: gamma of the paper, a finite number >= 0; 1 gives :func:`dpo`, 0 :func:`cpo`.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(-z) (s_w - s_l)``, z the logit.

    Raises:
        ValueError: beta <= 0, reference_weight < 0, p of another shape or outside [0, 1].

    Source: arXiv 2405.19534, the training variant with gamma and the theorem on ranking accuracy.

    >>> import torch
    >>> reference = torch.tensor([-15.0]), torch.tensor([-10.0])
    >>> logps = LogProbs(torch.tensor([-12.0]), torch.tensor([-12.0]), *reference)
    >>> round(dpo_gamma(logps).item(), 6)
    0.474077
    """
    check_positive("beta", beta)
    if not 0 <= reference_weight < float("inf"):
        raise ValueError(f"reference_weight must be a number >= 0 (1 is DPO, 0 reference-free), got {reference_weight}")
    gap = logps.policy_first - logps.policy_second
    z = beta * (gap - reference_weight * (logps.reference_first - logps.reference_second))
    return label_average(-functional.logsigmoid(z), -functional.logsigmoid(-z), p, logps)


def cpl(
    logps: LogProbs, p: Tensor | None = None, beta: float = 0.2, bias: float = 0.75, reference_free: bool = False
) -> Tensor:
    """Contrastive preference learning: regret preferences, with a bias that favors likely segments.

        loss = softplus(bias S(l) - S(w)),   S(y) = beta h(y),  or beta log pi(y|x) if reference_free

    People are taken to compare segments by regret, the discounted sum of ``beta log pi(a_t|s_t)``. The sum is the
    caller's: for segments of several steps or turns, give ``sum_t gamma^t log pi(a_t|s_t)`` as the log-probs of the
    record, policy and reference alike; gamma 1 is the plain sum, as in the published code.

    Args:
        logps: log-probs of the pairs (possibly discounted sums), nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: alpha of the paper, > 0.
        bias: lambda of the paper, in (0, 1]. 1 gives DPO (or, reference-free, CPO). Below, the loss is not invariant to
            a constant on both sums: it falls as both segments become likelier, which is its purpose.
        reference_free: S of the policy alone, the paper's main form (published with beta 0.1, bias 0.5). The default
            is its variant with a reference, CPL-KL (published with beta 0.2, bias 0.75).

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(bias S(l) - S(w)) (s_w - bias s_l)``.

    Raises:
        ValueError: beta <= 0, bias outside (0, 1], p of another shape or outside [0, 1].

    Source: arXiv 2310.13639, the loss on segments with its conservative bias.

    >>> import torch
    >>> logps = LogProbs(torch.tensor([-3.5]), torch.tensor([-4.2]), torch.zeros(1), torch.zeros(1))
    >>> round(cpl(logps, beta=0.1, bias=0.5, reference_free=True).item(), 6)
    0.765595
    """
    check_positive("beta", beta)
    if not 0 < bias <= 1:
        raise ValueError(f"bias must lie in (0, 1], got {bias}; 1 is no bias, 0 would leave the other segment out")
    first, second = beta * logps.policy_first, beta * logps.policy_second
    if not reference_free:
        first, second = first - beta * logps.reference_first, second - beta * logps.reference_second
    return label_average(
        functional.softplus(bias * second - first), functional.softplus(bias * first - second), p, logps
    )


def margin_dpo(logps: GroupLogProbs, values: Tensor, beta: float = 0.1, scale: float = 1.0) -> Tensor:
    """DPO with an offset: the better the winner, the larger the margin it has to reach.

        loss = - log sigmoid(beta d - scale |v_1 - v_2|),   w the completion of the larger value

    Args:
        logps: log-probs of two completions of each prompt, shape ``(groups, 2)``, nats.
        values: a number for each completion (rating, reward), shape ``(groups, 2)``; constants. The larger one wins;
            equal ones are a tie: the loss of DPO at P = 1/2, without an offset.
        beta: strength of the KL penalty to the reference, > 0.
        scale: logits a unit of value, >= 0; 0 gives DPO on hard labels. Values of wide range want it small, or
            transformed values: a reward model's log, ratings brought to (0, 1].

    Returns:
        Loss of each group, shape ``(groups,)``: log 2 where the margin equals the offset. Its gradient is
        ``-beta sigmoid(scale |v_1 - v_2| - beta d) (s_w - s_l)``. The offset is a floor to reach, not a target to stay
        at: beyond it the loss keeps falling.

    Raises:
        ValueError: beta <= 0, scale < 0; other than two completions a group; values of another shape or not finite.

    Source: arXiv 2402.10571 (ODPO), whose offset is ``alpha log(v_w - v_l)`` or another increasing function of the
    scores; the linear one here is the margin of arXiv 2310.01377's reward model.

    >>> import torch
    >>> logps = GroupLogProbs(torch.tensor([[-3.0, -10.0]]), torch.zeros(1, 2))
    >>> round(margin_dpo(logps, torch.tensor([[0.8, 0.5]])).item(), 6)
    0.513015
    """
    check_positive("beta", beta)
    if not 0 <= scale < float("inf"):
        raise ValueError(f"scale must be 0 (no offset) or a positive number, got {scale}")
    d, difference = contrast(logps, values)
    u, offset = beta * d, scale * difference.abs()
    p = (difference.sign() + 1) / 2
    return label_average(-functional.logsigmoid(u - offset), -functional.logsigmoid(-u - offset), p, logps.pair())
