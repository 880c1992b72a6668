"""The record of log-probs: what it refuses and what it derives."""

from __future__ import annotations

import pytest
import torch

from setsail.objectives import LogProbs
from setsail.objectives.labels import draw_preference


def _tensors() -> list[torch.Tensor]:
    return [
        torch.tensor(values, dtype=torch.float64) for values in ([-4.0, -6.0], [-3.0, -8.0], [-5.0, -5.0], [-2.0, -9.0])
    ]


def test_the_log_ratio_difference_is_first_minus_second() -> None:
    assert LogProbs(*_tensors()).log_ratio_difference().tolist() == [(-4 + 5) - (-3 + 2), (-6 + 5) - (-8 + 9)]


def test_shapes_must_agree() -> None:
    parts = _tensors()
    parts[1] = parts[1][:1]
    with pytest.raises(ValueError, match=r"four tensors of one shape \(pairs,\).*'policy_second': \(1,\)"):
        LogProbs(*parts)


def test_token_log_probs_are_refused() -> None:
    with pytest.raises(ValueError, match="sum over tokens first"):
        LogProbs(*(part.view(1, 2) for part in _tensors()))


def test_counts_are_no_log_probs() -> None:
    parts = _tensors()
    parts[2] = parts[2].long()
    with pytest.raises(ValueError, match=r"must be floating tensors, got .*torch.int64"):
        LogProbs(*parts)


def test_per_token_divides_each_answer_by_its_own_length() -> None:
    record = LogProbs(*_tensors(), torch.tensor([2, 3]), torch.tensor([1, 4])).per_token()
    assert record.policy_first.tolist() == [-2.0, -2.0]
    assert record.policy_second.tolist() == [-3.0, -2.0]
    assert record.reference_first.tolist() == pytest.approx([-2.5, -5 / 3])
    assert record.reference_second.tolist() == pytest.approx([-2.0, -2.25])


def test_an_empty_answer_counts_as_one_token() -> None:
    record = LogProbs(*_tensors(), torch.tensor([0, 3]), torch.tensor([1, 4])).per_token()
    assert record.policy_first[0].item() == -4.0


def test_select_keeps_pairs_together() -> None:
    record = LogProbs(*_tensors(), torch.tensor([2, 3]), torch.tensor([1, 4]))
    chosen = record.select(torch.tensor([False, True]))
    assert chosen.policy_first.tolist() == [-6.0]
    assert chosen.reference_second.tolist() == [-9.0]
    assert chosen.length_first is not None
    assert chosen.length_first.tolist() == [3]
    assert LogProbs(*_tensors()).select(torch.tensor([0])).length_first is None


def test_drawing_labels_needs_one_uniform_a_pair() -> None:
    with pytest.raises(ValueError, match=r"one uniform a pair is needed, shape \(2,\), got \(3,\)"):
        draw_preference(torch.zeros(2), torch.zeros(3))


def test_certain_labels_are_drawn_with_certainty() -> None:
    uniform = torch.tensor([0.0, 0.999999])
    assert draw_preference(torch.ones(2), uniform).tolist() == [1.0, 1.0]
    assert draw_preference(torch.zeros(2), uniform).tolist() == [0.0, 0.0]
