"""What one gradient step does to both completions of a pair: predicted, and measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail.core import DataError, stream
from setsail.evaluation import Entanglement, entanglement_of, normalized_direction
from setsail.objectives import (
    LogProbs,
    PairwiseObjective,
    cpo,
    dpo,
    dpo_positive,
    ipo,
    length_regularized_dpo,
    orpo,
    simpo,
    slic,
    sppo_hard,
)


def _one_weight(features: tuple[float, float, float]) -> tuple[Tensor, LogProbs]:
    """Three outcomes, ``p ~ exp(w f)`` at w = -1: the first is chosen, the second rejected."""
    weight = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    table = (weight * torch.tensor(features, dtype=torch.float64)).log_softmax(0)
    reference = torch.zeros(1, dtype=torch.float64)
    return weight, LogProbs(table[:1], table[1:2], reference, reference)


@pytest.mark.parametrize(
    ("features", "changes"),
    [((1.0, 2.0, 0.0), (-0.575210, -1.575210)), ((2.0, 1.0, 0.0), (1.575210, 0.575210))],
)
def test_both_fall_or_both_rise(features: tuple[float, float, float], changes: tuple[float, float]) -> None:
    """The closed form of one parameter; a unit step along the margin, as DPO's direction is."""
    weight, logps = _one_weight(features)
    found = entanglement_of(lambda logps, p: logps.policy_second - logps.policy_first, logps, [weight])
    assert (found.pull, found.push) == (1.0, 1.0)
    assert found.changes(1.0) == pytest.approx(changes, abs=1e-6)
    assert found.cosine == pytest.approx(1.0)
    assert (found.chosen_rises, found.rejected_falls) == (changes[0] > 0, changes[1] < 0)
    assert found.changes(1.0)[0] - found.changes(1.0)[1] == pytest.approx(1.0), "the margin rises in both"


class Writer:
    """A tiny autoregressive softmax: the last token's row of a table, through a layer that all tokens share."""

    def __init__(self, seed: int) -> None:
        table, layer = (stream(seed, "writer", name).normal(size=(5, 5)) for name in ("table", "layer"))
        self.parameters = [torch.from_numpy(part).requires_grad_() for part in (table, layer)]

    def logps(self, scale: float = 0.0, direction: list[Tensor] | None = None) -> LogProbs:
        table, layer = self.parameters
        if direction is not None:
            table, layer = (part + scale * step for part, step in zip(self.parameters, direction, strict=True))

        def logp(tokens: tuple[int, ...]) -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for before, token in zip((0, *tokens), tokens, strict=False):
                total = total + (layer @ torch.tanh(table[before])).log_softmax(0)[token]
            return total.view(1)

        reference = torch.tensor([-5.0], dtype=torch.float64)
        lengths = torch.tensor([4]), torch.tensor([3])
        return LogProbs(logp((1, 2, 3, 4)), logp((1, 2, 4)), reference, reference - 1, *lengths)


OBJECTIVES: dict[str, PairwiseObjective] = {
    "dpo": dpo,
    "ipo": ipo,
    "slic": slic,
    "length_regularized_dpo": length_regularized_dpo,
    "simpo": simpo,
    "cpo": cpo,
    "orpo": orpo,
    "sppo_hard": sppo_hard,
    "dpo_positive": dpo_positive,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_measured_changes_are_the_predicted_ones(name: str) -> None:
    """One step of 1e-4 along -grad L, within 1 %."""
    for seed in range(4):
        writer = Writer(seed)
        before = writer.logps()
        found = entanglement_of(OBJECTIVES[name], before, writer.parameters)
        gradient = torch.autograd.grad(OBJECTIVES[name](before, None).sum(), writer.parameters)
        step = 1e-4 / max(1.0, math.sqrt(sum(float((part**2).sum()) for part in gradient)))
        after = writer.logps(-step, list(gradient))
        measured = [
            (after.policy_first - before.policy_first).item(),
            (after.policy_second - before.policy_second).item(),
        ]
        size = max(abs(change) for change in measured)
        assert found.changes(step) == pytest.approx(measured, rel=0.01, abs=0.001 * size)


@pytest.mark.parametrize("name", ["dpo", "ipo", "slic", "length_regularized_dpo"])
def test_objectives_of_the_margin_pull_as_hard_as_they_push(name: str) -> None:
    writer = Writer(0)
    found = entanglement_of(OBJECTIVES[name], writer.logps(), writer.parameters)
    assert found.pull == pytest.approx(found.push)
    assert found.pull > 0


def test_simpo_pulls_and_pushes_by_the_lengths() -> None:
    """d_w / d_l = N_l / N_w, here 3 / 4."""
    writer = Writer(0)
    found = entanglement_of(simpo, writer.logps(), writer.parameters)
    assert found.pull / found.push == pytest.approx(3 / 4)


def test_a_soft_label_weighs_the_two_pulls() -> None:
    writer = Writer(1)
    halves = [entanglement_of(dpo, writer.logps(), writer.parameters, torch.full((1,), p).double()) for p in (1.0, 0.0)]
    mixed = entanglement_of(dpo, writer.logps(), writer.parameters, torch.full((1,), 0.3).double())
    assert halves[1].pull < 0, "the second is preferred, so the first is pushed down"
    assert mixed.pull == pytest.approx(0.3 * halves[0].pull + 0.7 * halves[1].pull)


def test_separate_parameters_are_not_entangled() -> None:
    first, second = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    reference = torch.zeros(1, dtype=torch.float64)
    found = entanglement_of(
        partial(dpo, beta=1.0), LogProbs(2 * first, 3 * second, reference, reference), [first, second]
    )
    assert found == Entanglement(chosen=4.0, rejected=9.0, inner=0.0, pull=0.5, push=0.5)
    assert found.changes(0.1) == pytest.approx((0.2, -0.45))
    assert found.cosine == 0.0


# The normalized step.


def _gradients(index: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = stream(index, "gradients")
    shared = generator.normal(size=7) * generator.choice([0.0, 1.0, 30.0])
    sides = [torch.from_numpy((shared + generator.normal(size=7)) * generator.lognormal(0, 2)) for _ in range(2)]
    return [sides[0][:3], sides[0][3:]], [sides[1][:3], sides[1][3:]]


def test_a_normalized_step_never_hurts_either_side() -> None:
    """1,000 pairs of gradients, of very different sizes and almost parallel among them; and the closed form."""
    hurt_by_the_margin = 0
    for index in range(1000):
        chosen, rejected = _gradients(index)
        direction = torch.cat(normalized_direction(chosen, rejected))
        mine, theirs = torch.cat(chosen), torch.cat(rejected)
        assert mine @ direction >= 0
        assert theirs @ direction <= 0
        record = Entanglement(
            chosen=(mine @ mine).item(), rejected=(theirs @ theirs).item(), inner=(mine @ theirs).item(), pull=1, push=1
        )
        assert record.normalized_changes(1.0) == pytest.approx(
            ((mine @ direction).item(), (theirs @ direction).item()), rel=1e-6, abs=1e-9
        )
        hurt_by_the_margin += not (record.chosen_rises and record.rejected_falls)
    assert hurt_by_the_margin > 300, "the plain step does"


def test_each_gradient_is_normalized_by_itself() -> None:
    """Not their difference: a long rejected gradient would still decide."""
    chosen, rejected = [torch.tensor([1.0, 0.1])], [torch.tensor([50.0, 0.0])]
    direction = normalized_direction(chosen, rejected)[0]
    assert (chosen[0] @ direction).item() > 0
    difference = chosen[0] - rejected[0]
    assert (chosen[0] @ difference / difference.norm()).item() < 0


# Refusals.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logps: LogProbs(*(torch.zeros(2),) * 4), r"\(2,\) pairs: entanglement is of one pair"),
        (lambda logps: LogProbs(*(torch.zeros(1),) * 4), "log-probs without a graph"),
    ],
)
def test_what_has_no_gradient(change: Callable[[LogProbs], LogProbs], message: str) -> None:
    writer = Writer(0)
    with pytest.raises(DataError, match=message):
        entanglement_of(dpo, change(writer.logps()), writer.parameters)


def test_parameters_of_another_model() -> None:
    with pytest.raises(DataError, match="do not depend on the parameters given"):
        entanglement_of(dpo, Writer(0).logps(), Writer(1).parameters)
    with pytest.raises(DataError, match="a completion whose gradient is zero"):
        normalized_direction([torch.zeros(3)], [torch.ones(3)])
