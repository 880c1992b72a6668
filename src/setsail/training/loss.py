"""From policy log-probs to the loss of a micro-batch, with what is logged about it.

Axis legend: ``A`` distinct answers of the micro-batch, ``G`` groups of one route and size, ``K`` completions of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import Group
from setsail.methods import Addend, Method, Route, route_loss
from setsail.objectives import GroupLogProbs, LogProbs, k1, k3
from setsail.training.batch import MicroBatch, preferences, values_of
from setsail.training.meter import Meter

Distributions = Callable[[Sequence[int]], tuple[list[Tensor], list[Tensor]]]
"""Next-token log-probs of answers, by index, under policy (with gradient) and reference: ``(tokens, vocabulary)``."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A micro-batch's log-probs, one entry an answer.

    Attributes:
        policy: summed over tokens, with gradient, shape ``(A,)``.
        reference: the same under the reference.
        length: tokens of each answer.
        tokens: token log-probs of the policy, detached, one tensor an answer.
    """

    policy: Tensor
    reference: Tensor
    length: Tensor
    tokens: tuple[Tensor, ...]

    def groups(self, members: Tensor) -> GroupLogProbs:
        """The log-probs of groups, given the answers' indices, shape ``(G, K)``."""
        return GroupLogProbs(self.policy[members], self.reference[members], self.length[members])


def assemble(batch: MicroBatch, token_logps: Tensor) -> Scored:
    """Sums over tokens, beside the reference's. ``token_logps`` has shape ``(A, T)``, zeros at padding."""
    sums = token_logps.sum(-1)
    lengths = [answer.completion.length for answer in batch.answers]
    tokens = token_logps.detach().cpu()
    return Scored(
        policy=sums,
        reference=torch.stack([tokens_of.sum() for tokens_of in batch.reference]).to(sums),
        length=torch.tensor(lengths, device=sums.device),
        tokens=tuple(tokens[row, :length] for row, length in enumerate(lengths)),
    )


def micro_loss(
    method: Method, batch: MicroBatch, scored: Scored, meter: Meter, distributions: Distributions | None = None
) -> Tensor:
    """The micro-batch's share of the step's loss, a scalar; what there is to know about it goes into ``meter``."""
    device, dtype = scored.policy.device, scored.policy.dtype
    routes: dict[str, Route | None] = {"offline": None, **{route.name: route for route in method.routes}}
    # Zero times the log-probs: the backward pass runs also where nothing is learnt from.
    total = 0.0 * scored.policy.sum() if not batch.groups else torch.zeros((), device=device, dtype=dtype)
    kinds = [(group.route, len(group.completions)) for group in batch.groups]
    for kind in dict.fromkeys(kinds):
        index = [i for i, each in enumerate(kinds) if each == kind]
        groups = [batch.groups[i] for i in index]
        logps = scored.groups(torch.tensor([batch.members[i] for i in index], device=device))
        values = values_of(groups, dtype)
        finished = [all(one.finished for one in group.completions) for group in groups]
        part = route_loss(
            method,
            routes[kind[0]],
            logps,
            preferences(groups, dtype).to(device),
            None if values is None else values.to(device),
            _facts(batch, index, scored.policy),
            uniform=batch.uniforms[index].to(device),
            baseline=batch.baselines[index].to(device, dtype),
            mask=torch.tensor(finished, device=device),
        )
        total = total + (part.surrogate * batch.weights[index].to(device, dtype)).sum()
        _measure(method, routes[kind[0]], groups, logps, part.value, batch, meter)
        if not method.reference.anchor:
            # A product of two policies is known up to a factor: a completion's log-ratio to it is no sample of a KL.
            _measure_kl(kind[0], [member for i in index for member in batch.members[i]], scored, batch, meter)
    return total + _addends(method, batch, scored, distributions, meter)


def _facts(batch: MicroBatch, index: Sequence[int], like: Tensor) -> dict[str, Tensor]:
    """What else the objective asks for, of the groups at ``index``."""
    return {
        name: torch.tensor([fact[i] for i in index] if isinstance(fact, list) else fact).to(like)
        for name, fact in batch.facts.items()
    }


def _addends(
    method: Method, batch: MicroBatch, scored: Scored, distributions: Distributions | None, meter: Meter
) -> Tensor:
    total = scored.policy.new_zeros(())
    for addend in method.addends:
        extra = batch.extras.get(addend.name)
        if extra is None or not extra.answers:
            continue
        values = _addend_values(addend, extra.answers, scored, distributions)
        total = total + addend.coefficient * extra.weight * values.sum()
        meter.add(f"sail/{addend.name}", values)
    return total


def _addend_values(
    addend: Addend, answers: Sequence[int], scored: Scored, distributions: Distributions | None
) -> Tensor:
    if addend.distributions:
        assert distributions is not None, (
            "an added term reads next-token distributions, but there is no way to get them"
        )
        pairs = zip(*distributions(answers), strict=True)
        return torch.stack([addend.function(policy, reference).mean() for policy, reference in pairs])
    index = torch.tensor(answers, device=scored.policy.device)
    policy, reference = scored.policy[index], scored.reference[index]
    if addend.per_token:
        length = scored.length[index].clamp(min=1)
        policy, reference = policy / length, reference / length
    return addend.function(policy, reference)


def _measure(
    method: Method,
    route: Route | None,
    groups: Sequence[Group],
    logps: GroupLogProbs,
    value: Tensor,
    batch: MicroBatch,
    meter: Meter,
) -> None:
    """Loss, margin, accuracy, entropy and lengths of one route's groups (None = the offline pairs)."""
    prefix = f"sail/{groups[0].route}"
    meter.add(f"{prefix}/loss", value)
    if groups[0].is_pair:
        self_labeled = route is not None and route.is_self_labeled
        # Pairs that are learnt from by their values may lack a preference between the two.
        judged = torch.tensor([self_labeled or group.p is not None for group in groups])
        pairs = [group for group, is_judged in zip(groups, judged.tolist(), strict=True) if is_judged]
        if pairs:
            chosen = logps.pair().select(judged.to(logps.policy.device))
            _measure_pairs(method, prefix, pairs, chosen, meter, self_labeled=self_labeled)
    sides = [one for group in groups for one in group.completions]
    meter.add(f"{prefix}/length", [float(side.length) for side in sides])
    meter.add(f"{prefix}/truncated", [float(not side.finished) for side in sides])
    if groups[0].policy_version is not None:
        gaps = [float(batch.policy_version - (group.policy_version or 0)) for group in groups]
        meter.add(f"{prefix}/staleness", gaps)
        drawn = [side for side in sides if side.origin != "dataset"]
        meter.add("completions/mean_length", [float(side.length) for side in drawn])
        meter.add("completions/clipped_ratio", [float(not side.finished) for side in drawn])


def _measure_pairs(
    method: Method, prefix: str, pairs: Sequence[Group], logps: LogProbs, meter: Meter, *, self_labeled: bool
) -> None:
    """Margin, accuracy and entropy of pairs."""
    margin = (method.beta * logps.log_ratio_difference()).detach().double().cpu()
    q = torch.sigmoid(margin)
    p = q if self_labeled else preferences(pairs, torch.float64)
    entropy = torch.special.entr(p) + torch.special.entr(1 - p)
    meter.add(f"{prefix}/p_entropy", entropy)
    # The margin is signed so that agreement with the label is positive; a self-labeled pair agrees with itself.
    sign = torch.where(p >= 0.5, 1.0, -1.0)
    meter.add(f"{prefix}/margin", sign * margin)
    if not self_labeled:
        # A tie has no right answer and no chosen side.
        decided = p != 0.5
        meter.add(f"{prefix}/accuracy", right((sign * margin)[decided]))
        _measure_like_dpo(method, logps.select(decided.to(logps.policy_first.device)), sign[decided] > 0, meter)


UNDECIDED = 1e-5
"""Margins this close to 0 are rounding: two float32 scores of the same weights differ by as much."""


def right(margin: Tensor) -> Tensor:
    """1 where a signed margin agrees with the label, 0 where not, 1/2 at 0 up to rounding: an untrained policy's score.

    >>> right(torch.tensor([0.3, -0.3, 1e-7])).tolist()
    [1.0, 0.0, 0.5]
    """
    return (margin > UNDECIDED).double() + 0.5 * (margin.abs() <= UNDECIDED).double()


def _measure_like_dpo(method: Method, logps: LogProbs, first_chosen: Tensor, meter: Meter) -> None:
    """The metric names that users of DPO trainers know, over every pair that has a label from outside."""
    chosen = first_chosen.to(logps.policy_first.device)
    rewards = [
        method.beta * (policy - reference).detach()
        for policy, reference in (
            (logps.policy_first, logps.reference_first),
            (logps.policy_second, logps.reference_second),
        )
    ]
    reward_chosen = torch.where(chosen, rewards[0], rewards[1])
    reward_rejected = torch.where(chosen, rewards[1], rewards[0])
    meter.add("rewards/chosen", reward_chosen)
    meter.add("rewards/rejected", reward_rejected)
    meter.add("rewards/margins", reward_chosen - reward_rejected)
    meter.add("rewards/accuracies", right(reward_chosen - reward_rejected))
    meter.add("logps/chosen", torch.where(chosen, logps.policy_first, logps.policy_second))
    meter.add("logps/rejected", torch.where(chosen, logps.policy_second, logps.policy_first))


def _measure_kl(name: str, members: Sequence[int], scored: Scored, batch: MicroBatch, meter: Meter) -> None:
    """KL(policy || reference) a completion, on completions the policy drew: k1 and k3, summed over tokens."""
    for index in members:
        if batch.answers[index].completion.origin != "policy":
            continue
        policy, reference = scored.tokens[index], batch.reference[index]
        meter.add(f"sail/{name}/kl_k1", float(k1(policy, reference).sum()))
        meter.add(f"sail/{name}/kl_k3", float(k3(policy, reference).sum()))
