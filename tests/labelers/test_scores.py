"""Scores become probabilities; what is no number stays missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from setsail.core import ConfigError
from setsail.labelers import judgement_from_scores, missing_judgement
from setsail.labelers.scores import finite_score


def test_soft_is_the_sigmoid_of_the_scaled_gap() -> None:
    judgement = judgement_from_scores([2.0, 0.5, -1.0], labeler="x", scale=2.0)
    for i, first in enumerate(judgement.scores):
        for j, second in enumerate(judgement.scores):
            assert judgement.preference[i][j] == pytest.approx(1 / (1 + math.exp(-(first - second) / 2.0)), abs=1e-15)
    assert judgement.reason == ""


def test_hard_is_the_argmax_with_ties() -> None:
    judgement = judgement_from_scores([1.0, 1.0, 0.0], labeler="x", hard=True)
    assert judgement.preference == ((0.5, 0.5, 1.0), (0.5, 0.5, 1.0), (0.0, 0.0, 0.5))


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf, "2", b"2", [], object()])
@pytest.mark.parametrize("hard", [False, True])
def test_what_is_no_finite_number_never_beats_anything(nothing: object, hard: bool) -> None:
    judgement = judgement_from_scores([-1.0, nothing], labeler="x", hard=hard)  # type: ignore[list-item]
    assert judgement.preference == ((0.5, None), (None, None))
    assert judgement.scores == (-1.0, None)
    assert judgement.reason == "no finite score for candidate 1 of 0..1"


def test_a_reason_is_kept_only_where_something_is_missing() -> None:
    assert judgement_from_scores([0.0, None], labeler="x", reason="timed out").reason == "timed out"
    assert judgement_from_scores([0.0, 1.0], labeler="x", reason="timed out").reason == ""


def test_huge_gaps_saturate_without_overflow() -> None:
    judgement = judgement_from_scores([1e308, -1e308, 800.0, 0.0], labeler="x")
    assert judgement.preference[0][1] == 1.0
    assert judgement.preference[1][0] == 0.0
    assert 0.0 <= judgement.preference[3][2] < 1e-300


@pytest.mark.parametrize("number", [np.float32(1.5), np.array(1.5), torch.tensor(1.5), torch.tensor([1.5]), 1.5])
def test_numbers_of_other_libraries_are_numbers(number: object) -> None:
    assert finite_score(number) == 1.5


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ConfigError, match="positive number in units of the score"):
        judgement_from_scores([0.0, 1.0], labeler="x", scale=scale)


def test_few_candidates() -> None:
    assert judgement_from_scores([], labeler="x").preference == ()
    assert judgement_from_scores([3.0], labeler="x").preference == ((0.5,),)
    assert missing_judgement(0, labeler="x", reason="r").preference == ()
