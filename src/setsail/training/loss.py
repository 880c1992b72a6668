"""From policy log-probs to the loss of a micro-batch, with what is logged about it.

Axis legend: ``P`` pairs of the micro-batch, ``E`` extras, rows are first completions, second completions, extras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import Pair
from setsail.methods import Method, Route, route_loss
from setsail.objectives import LogProbs, k1, k3
from setsail.training.meter import Meter
from setsail.training.step import Extra, MicroBatch, preferences


@dataclass(frozen=True, slots=True)
class Scored:
    """A micro-batch's log-probs.

    Attributes:
        logps: of the pairs, gradient in the policy's part, shape ``(P,)`` each.
        extra_policy, extra_reference: of the extras, shape ``(E,)``.
        first, second: token log-probs of the policy, detached, one tensor a completion.
    """

    logps: LogProbs
    extra_policy: Tensor
    extra_reference: Tensor
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


def rows_of(batch: MicroBatch) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Prompt ids and completion ids of every row of the forward pass: firsts, seconds, extras."""
    prompts = [pair.prompt for pair in batch.pairs] * 2 + [extra.prompt for extra in batch.extras]
    completions = [pair.first for pair in batch.pairs] + [pair.second for pair in batch.pairs]
    completions += [extra.completion for extra in batch.extras]
    return [prompt.token_ids for prompt in prompts], [completion.token_ids for completion in completions]


def assemble(batch: MicroBatch, token_logps: Tensor) -> Scored:
    """Sums over tokens, paired with the reference's. ``token_logps`` has shape ``(2P + E, T)``, zeros at padding."""
    count = len(batch.pairs)
    sums = token_logps.sum(-1)
    device, dtype = sums.device, sums.dtype

    def reference(side: int) -> Tensor:
        return torch.stack([both[side].sum() for both in batch.reference]).to(device, dtype)

    lengths = [pair.first.length for pair in batch.pairs], [pair.second.length for pair in batch.pairs]
    extra_reference = torch.stack([extra.reference.sum() for extra in batch.extras]) if batch.extras else sums[:0]
    tokens = token_logps.detach().cpu()
    return Scored(
        logps=LogProbs(
            sums[:count],
            sums[count : 2 * count],
            reference(0),
            reference(1),
            torch.tensor(lengths[0], device=device),
            torch.tensor(lengths[1], device=device),
        ),
        extra_policy=sums[2 * count :],
        extra_reference=extra_reference.to(device, dtype),
        first=tuple(tokens[row, :length] for row, length in enumerate(lengths[0])),
        second=tuple(tokens[count + row, :length] for row, length in enumerate(lengths[1])),
    )


def micro_loss(method: Method, batch: MicroBatch, scored: Scored, meter: Meter) -> Tensor:
    """The micro-batch's share of the step's loss, a scalar; what there is to know about it goes into ``meter``."""
    logps = scored.logps
    device, dtype = logps.policy_first.device, logps.policy_first.dtype
    p = preferences(batch.pairs, dtype).to(device)
    finished = torch.tensor([pair.first.finished and pair.second.finished for pair in batch.pairs], device=device)
    weights = batch.weights.to(device, dtype)
    routes: dict[str, Route | None] = {"offline": None, **{route.name: route for route in method.routes}}
    total = torch.zeros((), device=device, dtype=dtype)
    for name in dict.fromkeys(pair.route for pair in batch.pairs):
        index = torch.tensor([i for i, pair in enumerate(batch.pairs) if pair.route == name], device=device)
        part = route_loss(
            method,
            routes[name],
            logps.select(index),
            p[index],
            uniform=batch.uniforms.to(device)[index],
            baseline=batch.baselines.to(device, dtype)[index],
            mask=finished[index],
        )
        total = total + (part.surrogate * weights[index]).sum()
        if bool(weights[index].any()):
            _measure(method, name, [batch.pairs[i] for i in index.tolist()], index, part.value, scored, batch, meter)
    return total + _addends(method, batch.extras, scored, batch.extra_weight, meter)


def _addends(method: Method, extras: Sequence[Extra], scored: Scored, weight: float, meter: Meter) -> Tensor:
    total = scored.logps.policy_first.new_zeros(())
    for addend in method.addends:
        if not extras or not addend.coefficient:
            continue
        values = addend.function(scored.extra_policy, scored.extra_reference)
        total = total + addend.coefficient * weight * values.sum()
        meter.add(f"sail/{addend.name}", values)
    return total


def _measure(
    method: Method,
    name: str,
    pairs: Sequence[Pair],
    index: Tensor,
    value: Tensor,
    scored: Scored,
    batch: MicroBatch,
    meter: Meter,
) -> None:
    """Loss, margin, accuracy, entropy, lengths and KL of one route's pairs."""
    logps = scored.logps.select(index)
    margin = (method.beta * logps.log_ratio_difference()).detach().double().cpu()
    q = torch.sigmoid(margin)
    self_labeled = all(pair.p is None for pair in pairs)
    p = q if self_labeled else preferences(pairs, torch.float64)
    entropy = torch.special.entr(p) + torch.special.entr(1 - p)
    prefix = f"sail/{name}"
    meter.add(f"{prefix}/loss", value)
    meter.add(f"{prefix}/p_entropy", entropy)
    # The margin is signed so that agreement with the label is positive; a self-labeled pair agrees with itself.
    sign = torch.where(p >= 0.5, 1.0, -1.0)
    meter.add(f"{prefix}/margin", sign * margin)
    if not self_labeled:
        # A tie has no right answer and no chosen side.
        decided = p != 0.5
        meter.add(f"{prefix}/accuracy", right((sign * margin)[decided]))
        _measure_like_dpo(method, logps.select(decided.to(index.device)), sign[decided] > 0, meter)
    sides = [side for pair in pairs for side in (pair.first, pair.second)]
    meter.add(f"{prefix}/length", [float(side.length) for side in sides])
    meter.add(f"{prefix}/truncated", [float(not side.finished) for side in sides])
    if pairs[0].policy_version is not None:
        meter.add(f"{prefix}/staleness", [float(batch.policy_version - (pair.policy_version or 0)) for pair in pairs])
        _measure_kl(prefix, index, scored, batch, meter)
        meter.add("completions/mean_length", [float(side.length) for side in sides])
        meter.add("completions/clipped_ratio", [float(not side.finished) for side in sides])


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


def _measure_kl(prefix: str, index: Tensor, scored: Scored, batch: MicroBatch, meter: Meter) -> None:
    """KL(policy || reference) a completion, on completions the policy drew: k1 and k3, summed over tokens."""
    for i in index.tolist():
        for policy, reference in zip((scored.first[i], scored.second[i]), batch.reference[i], strict=True):
            meter.add(f"{prefix}/kl_k1", float(k1(policy, reference).sum()))
            meter.add(f"{prefix}/kl_k3", float(k3(policy, reference).sum()))
