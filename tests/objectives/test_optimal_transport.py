"""AOT: quantiles against quantiles, labels that must be hard, and what a function of the batch does not promise."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from setsail.core import stream
from setsail.objectives import LogProbs, PairwiseObjective, aot, aot_unpaired, dpo, robust

BETA, PAIRS = 0.3, 7
OBJECTIVES: list[PairwiseObjective] = [partial(aot, beta=BETA), partial(aot_unpaired, beta=BETA)]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=["paired", "unpaired"])


def _record(pairs: int = PAIRS, requires_grad: bool = False) -> LogProbs:
    numbers = torch.from_numpy(stream(0, "transport").normal(size=(4, PAIRS)))[:, :pairs] * 4 - 20
    first, second = (part.clone().requires_grad_(requires_grad) for part in numbers[:2])
    return LogProbs(first, second, numbers[2], numbers[3])


def _matched(values: Tensor, others: Tensor) -> Tensor:
    """The mean loss at the cheapest of all matchings of values with others."""
    costs = [
        functional.softplus(-BETA * (values - others[list(order)])).mean() for order in permutations(range(len(others)))
    ]
    return torch.stack(costs).min()


def test_paired_the_margins_are_transported_to_the_references_at_the_least_cost() -> None:
    logps = _record(5)
    margins = logps.policy_first - logps.policy_second
    reference = logps.reference_first - logps.reference_second
    assert aot(logps, beta=BETA).mean().item() == pytest.approx(_matched(margins, reference).item(), rel=1e-12)


def test_unpaired_the_chosen_are_transported_to_the_rejected_at_the_least_cost() -> None:
    logps = _record(5)
    chosen, rejected = logps.policy_first - logps.reference_first, logps.policy_second - logps.reference_second
    assert aot_unpaired(logps, beta=BETA).mean().item() == pytest.approx(_matched(chosen, rejected).item(), rel=1e-12)


@each_objective
def test_a_batch_of_one_pair_is_dpo(objective: PairwiseObjective) -> None:
    for label in (None, torch.ones(1), torch.zeros(1)):
        wanted = dpo(_record(1), None if label is None else label.double(), BETA)
        found = objective(_record(1), None if label is None else label.double())
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@each_objective
def test_the_order_of_the_batch_does_not_matter(objective: PairwiseObjective) -> None:
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    found = objective(_record().select(order), None)
    torch.testing.assert_close(found, objective(_record(), None)[order], atol=1e-12, rtol=0)


@each_objective
def test_a_pair_is_swapped_together_with_its_hard_label(objective: PairwiseObjective) -> None:
    logps, label = _record(), torch.tensor([1.0, 0, 0, 1, 1, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(objective(logps.swapped(), 1 - label), objective(logps, label), atol=1e-12, rtol=0)
    assert not torch.allclose(objective(logps, label), objective(logps, None))


def test_unpaired_it_does_not_matter_who_was_whose_opponent() -> None:
    logps, order = _record(), torch.tensor([3, 0, 6, 2, 5, 1, 4])
    shuffled = LogProbs(
        logps.policy_first, logps.policy_second[order], logps.reference_first, logps.reference_second[order]
    )
    torch.testing.assert_close(aot_unpaired(shuffled), aot_unpaired(logps), atol=1e-12, rtol=0)
    assert not torch.allclose(aot(shuffled), aot(logps))


@each_objective
@pytest.mark.parametrize("through", ["policy_first", "policy_second"])
def test_the_gradient_is_that_of_finite_differences(objective: PairwiseObjective, through: str) -> None:
    logps = _record(requires_grad=True)
    (found,) = torch.autograd.grad(objective(logps, None).sum(), getattr(logps, through))
    parts = {name: getattr(logps, name).detach() for name in ("policy_first", "policy_second")}
    for index in range(PAIRS):
        values = []
        for step in (1e-6, -1e-6):
            moved = parts[through].clone()
            moved[index] += step
            policy = parts | {through: moved}
            record = LogProbs(**policy, reference_first=logps.reference_first, reference_second=logps.reference_second)
            values.append(objective(record, None).sum().item())
        assert found[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-9)


@each_objective
def test_micro_batches_do_not_add_up_to_the_batch(objective: PairwiseObjective) -> None:
    """What it means to be a function of the batch; a promise of all other pairwise objectives."""
    logps = _record()
    parts = [objective(logps.select(torch.tensor(index)), None) for index in ([0, 1, 2], [3, 4, 5, 6])]
    assert not torch.allclose(torch.cat(parts), objective(logps, None))


@each_objective
def test_soft_labels_are_refused(objective: PairwiseObjective) -> None:
    p = torch.tensor([1.0, 0, 0, 1, 0.7, 0, 1], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"p must be 0 or 1 here, got 0.7.*draw_preference"):
        objective(_record(), p)
    with pytest.raises(ValueError, match=r"p must be 0 or 1 here, got 0.9"):
        robust(objective, 0.1)(_record(), None)


@each_objective
def test_a_label_that_is_no_probability_is_refused(objective: PairwiseObjective) -> None:
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        objective(_record(), torch.full((PAIRS,), 2.0))


@pytest.mark.parametrize("objective", [aot, aot_unpaired])
def test_beta_must_be_positive(objective: PairwiseObjective) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        objective(_record(), None, beta=0.0)  # type: ignore[call-arg]
