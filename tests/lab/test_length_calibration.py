"""The price of length that training searches is the one at which the study's curve crosses zero."""

from __future__ import annotations

import pytest

from setsail.lab.studies.length_calibration import GRID, claims, drawn_scores, synthetic_gaps
from setsail.labelers.implicit import length_penalty


def _found(scale: float = 1.0, shift: bool = False) -> float:
    lengths, scores = drawn_scores()
    rewards = scale * scores + (lengths.mean(-1, keepdim=True) if shift else 0.0)
    return length_penalty(rewards.tolist(), lengths.tolist())  # type: ignore[arg-type]


def test_the_search_finds_the_price_that_the_scores_pay() -> None:
    assert _found() == pytest.approx(0.010, abs=0.002)


def test_the_search_stops_where_the_exact_curve_is_smallest() -> None:
    gaps = synthetic_gaps()
    assert _found() == min(GRID, key=lambda alpha: abs(gaps[GRID.index(alpha)]))


def test_a_constant_of_the_prompt_changes_nothing() -> None:
    assert _found(shift=True) == _found()


def test_the_price_goes_with_the_scale_of_the_scores() -> None:
    assert _found(scale=0.1) == pytest.approx(0.001, abs=1e-9)


def test_calibration_takes_out_length_and_the_claims_say_so() -> None:
    assert all(claim.reproduced for claim in claims())
