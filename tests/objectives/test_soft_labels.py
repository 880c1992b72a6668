"""The one way in which a soft label becomes a loss."""

from __future__ import annotations

import pytest
import torch

from setsail.objectives import LogProbs
from setsail.objectives.soft_labels import label_average, over_both_labels


def _record() -> LogProbs:
    parts = torch.tensor([[-4.0, -6.0], [-3.0, -8.0], [-5.0, -5.0], [-2.0, -9.0]], dtype=torch.float64)
    return LogProbs(*parts, torch.tensor([2, 3]), torch.tensor([1, 4]))


def test_swapping_exchanges_every_part_and_twice_restores_it() -> None:
    logps = _record()
    swapped = logps.swapped()
    for name in ("policy", "reference", "length"):
        assert torch.equal(getattr(swapped, f"{name}_first"), getattr(logps, f"{name}_second"))
        assert torch.equal(getattr(swapped, f"{name}_second"), getattr(logps, f"{name}_first"))
        assert torch.equal(getattr(swapped.swapped(), f"{name}_first"), getattr(logps, f"{name}_first"))


def test_a_record_without_lengths_is_swapped_without() -> None:
    logps = _record()
    bare = LogProbs(logps.policy_first, logps.policy_second, logps.reference_first, logps.reference_second)
    assert bare.swapped().length_first is None


def test_the_swapped_pair_has_the_opposite_log_ratio_difference_to_the_last_bit() -> None:
    assert torch.equal(_record().swapped().log_ratio_difference(), -_record().log_ratio_difference())


def test_the_average_is_over_the_loss_of_the_pair_and_of_the_swapped_one() -> None:
    p = torch.tensor([0.25, 1.0], dtype=torch.float64)
    found = over_both_labels(lambda pair: pair.policy_first, _record(), p)
    assert found.tolist() == [0.25 * -4 + 0.75 * -3, -6]


def test_without_a_label_the_loss_is_computed_once() -> None:
    seen = []

    def loss(pair: LogProbs) -> torch.Tensor:
        seen.append(pair)
        return pair.policy_first

    logps = _record()
    assert torch.equal(over_both_labels(loss, logps, None), logps.policy_first)
    assert seen == [logps]


def test_the_gradient_in_the_label_is_the_difference_of_the_losses() -> None:
    p = torch.tensor([0.25, 0.5], dtype=torch.float64, requires_grad=True)
    first, second = torch.tensor([[1.0, 2.0], [5.0, 1.0]], dtype=torch.float64)
    (slope,) = torch.autograd.grad(label_average(first, second, p, _record()).sum(), p)
    assert slope.tolist() == [-4.0, 1.0]


def test_a_label_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        over_both_labels(lambda pair: pair.policy_first, _record(), torch.tensor([0.2, 1.2]))
