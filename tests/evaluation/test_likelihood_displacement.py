"""What training did to the log-probs of its pairs."""

from __future__ import annotations

import pytest

from setsail.core import DataError
from setsail.evaluation import likelihood_displacement, mean_interval, wilson

BEFORE = ([-10.0, -12.0, -8.0, -9.0], [-11.0, -9.0, -8.5, -20.0])
AFTER = ([-11.0, -11.5, -9.0, -9.0], [-15.0, -10.0, -9.5, -19.0])


def test_by_hand() -> None:
    """Chosen move by -1, 0.5, -1, 0; rejected by -4, -1, -1, 1; margins by 3, 1.5, 0, -1."""
    found = likelihood_displacement(BEFORE[0], AFTER[0], BEFORE[1], AFTER[1])
    assert found.chosen == mean_interval([-1.0, 0.5, -1.0, 0.0])
    assert found.rejected == mean_interval([-4.0, -1.0, -1.0, 1.0])
    assert found.margin == mean_interval([3.0, 1.5, 0.0, -1.0])
    assert found.chosen_fell == wilson(2, 4)
    assert found.both_fell == wilson(2, 4)


def test_no_training_no_displacement() -> None:
    found = likelihood_displacement(BEFORE[0], BEFORE[0], BEFORE[1], BEFORE[1])
    assert (found.chosen.estimate, found.margin.estimate, found.chosen_fell.estimate) == (0.0, 0.0, 0.0)


def test_pairs_of_one_prompt_are_clusters() -> None:
    found = likelihood_displacement(BEFORE[0], AFTER[0], BEFORE[1], AFTER[1], clusters=["a", "a", "b", "b"])
    assert found.margin == mean_interval([3.0, 1.5, 0.0, -1.0], clusters=["a", "a", "b", "b"])


def test_all_four_log_probs_of_every_pair() -> None:
    with pytest.raises(DataError, match=r"\[4, 4, 4, 3\] log-probs: give all four of every pair"):
        likelihood_displacement(BEFORE[0], AFTER[0], BEFORE[1], AFTER[1][:3])
