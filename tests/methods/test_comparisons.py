"""What judged candidates become: which are compared, with which preference, with which values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from setsail.core import Judgement
from setsail.methods import Comparison, Route, compare, comparison_law, get
from setsail.methods.parts import DRAWN
from setsail.pairing import win_rates

Matrix = tuple[tuple[float | None, ...], ...]
CYCLE: Matrix = ((0.5, 0.9, 0.2), (0.1, 0.5, 0.8), (0.8, 0.2, 0.5))


def _judged(preference: Matrix, scores: tuple[float | None, ...] | None = None) -> Judgement:
    return Judgement(preference=preference, scores=scores, labeler="test")


def _scored(*scores: float | None) -> Judgement:
    matrix = tuple(tuple(None if a is None or b is None else 1 / (1 + math.exp(b - a)) for b in scores) for a in scores)
    return _judged(matrix, scores)


def _route(**changes: object) -> Route:
    return Route(name="x", candidates=DRAWN, preference="labeler", weight=1.0, **changes)  # type: ignore[arg-type]


def _compare(route: Route, judgement: Judgement | None, count: int) -> list[Comparison]:
    return compare(route, judgement, count, lambda: 0.5)


# Labels.


def test_the_preference_itself_is_the_label() -> None:
    [found] = _compare(_route(), _judged(CYCLE), 3)
    assert (found.indices, found.p) == ((0, 1), 0.9)


@pytest.mark.parametrize(("p", "hard"), [(0.9, 1.0), (0.51, 1.0), (0.5, 0.5), (0.2, 0.0)])
def test_a_hard_label_is_the_likelier_side_and_a_tie_stays_one(p: float, hard: float) -> None:
    [found] = _compare(_route(label="hard"), _judged(((0.5, p), (1 - p, 0.5))), 2)
    assert found.p == hard


def test_win_rates_label_by_all_candidates() -> None:
    """The first beats the second head to head, and loses to it in the round robin."""
    matrix: Matrix = ((0.5, 0.6, 0.1), (0.4, 0.5, 1.0), (0.9, 0.0, 0.5))
    [found] = _compare(_route(label="win-rates"), _judged(matrix), 3)
    assert found.p == pytest.approx(1 / (1 + math.exp(0.7 - 0.35)), abs=1e-15)


def test_what_is_missing_stays_missing() -> None:
    gap: Matrix = ((0.5, None, 0.9), (None, 0.5, 0.2), (0.1, 0.8, 0.5))
    for label in ("preference", "hard", "win-rates"):
        assert _compare(_route(label=label), _judged(gap), 3)[0].p is None
    # The pair's own preference is known, but not what the first would do against the third.
    elsewhere: Matrix = ((0.5, 0.7, None), (0.3, 0.5, 0.2), (None, 0.8, 0.5))
    assert [_compare(_route(label=label), _judged(elsewhere), 3)[0].p for label in ("preference", "win-rates")] == [
        0.7,
        None,
    ]


def test_self_labeled_pairs_carry_no_label_and_constructed_ones_a_certain_one() -> None:
    assert _compare(get("sail-dpp").routes[0], None, 2) == [Comparison((0, 1), None, None)]
    assert _compare(get("spin").routes[0], None, 2) == [Comparison((0, 1), 1.0, None)]


# Values.


def test_values_are_the_scores_of_those_compared() -> None:
    [found] = _compare(_route(pairing="best-worst"), _scored(0.3, -1.0, 2.0), 3)
    assert (found.indices, found.values) == ((2, 1), (2.0, -1.0))


def test_a_labeler_that_only_compares_gives_win_rates() -> None:
    rates = win_rates(CYCLE)
    [found] = _compare(get("raft").routes[0], _judged(CYCLE), 3)
    assert found.indices == (rates.index(max(rate for rate in rates if rate is not None)),)
    assert found.values == (rates[found.indices[0]],)


def test_win_rate_values_are_over_all_candidates() -> None:
    [found] = _compare(get("sppo").routes[0], _judged(CYCLE), 3)
    rates = win_rates(CYCLE)
    assert found.values == tuple(rates[index] for index in found.indices)


def test_values_against_the_last_candidate_leave_it_out_of_the_comparison() -> None:
    [found] = _compare(get("egpo").routes[0], _judged(CYCLE), 3)
    assert (found.indices, found.values) == ((0, 1), (0.2, 0.8))
    everyone = _compare(_route(values="last", pairing="all-pairs"), _judged(CYCLE), 3)
    assert [each.indices for each in everyone] == [(0, 1)]
    ranked = _compare(_route(values="last", pairing="best-worst"), _scored(0.1, 0.3, 9.0), 3)
    assert [each.indices for each in ranked] == [(1, 0)]


@pytest.mark.parametrize("values", ["scores", "win-rates", "last"])
def test_a_missing_value_leaves_the_group_without_values(values: str) -> None:
    gap: Matrix = ((0.5, 0.5, None), (0.5, 0.5, None), (None, None, 0.5))
    judgement = _judged(gap, (1.0, None, 2.0))
    [found] = _compare(_route(values=values), judgement, 3)
    assert found.values is None


# Selections of the catalogue, on numbers.


def test_best_against_worst_of_five() -> None:
    """arXiv 2405.07863: chosen 1 (the first maximum), rejected 2; equal rewards give no pair."""
    for name in ("rlhf-workflow", "self-rewarding", "inpo"):
        route = get(name).routes[0]
        [found] = _compare(route, _scored(0.3, 2.1, -1.0, 2.1, 0.9), 5)
        assert (found.indices, found.p) == ((1, 2), 1.0)
        assert _compare(route, _scored(1.0, 1.0, 1.0), 3) == []
        assert _compare(route, _scored(4.0, 4.0, 4.0, 4.0), 4) == []


def test_what_is_chosen_does_not_depend_on_the_order_of_the_answers() -> None:
    answers = {"a": 0.3, "b": 2.1, "c": -1.0, "d": 0.9}
    for order in ("abcd", "dcba", "bdac"):
        [found] = _compare(get("self-rewarding").routes[0], _scored(*(answers[name] for name in order)), 4)
        assert [order[index] for index in found.indices] == ["b", "c"]


def test_an_answer_without_a_score_is_left_out() -> None:
    [found] = _compare(get("rlhf-workflow").routes[0], _scored(None, 0.4, -0.2, None), 4)
    assert (found.indices, found.p) == ((1, 2), 1.0)
    assert _compare(get("rlhf-workflow").routes[0], _scored(None, 0.4, None), 3) == []


def test_clear_wins_of_a_group() -> None:
    """Gaps of 2 nats are clear at 0.85 (0.88), gaps of 1.5 are not (0.82)."""
    found = _compare(get("rs-dpo").routes[0], _scored(0.0, 2.0, 0.5, -1.5), 4)
    assert [each.indices for each in found] == [(1, 0), (1, 3), (2, 3)]
    assert {each.p for each in found} == {1.0}
    assert _compare(get("rs-dpo").routes[0], _scored(0.0, 0.1, 0.2), 3) == []


def test_the_likelier_side_may_be_the_one_that_ranks_last() -> None:
    """Ranked by win rate on a cycle, the worst can beat the best: the label says who beats whom."""
    matrix: Matrix = ((0.5, 1.0, 0.4), (0.0, 0.5, 1.0), (0.6, 0.0, 0.5))
    [found] = _compare(get("inpo").routes[0], _judged(matrix), 3)
    assert (found.indices, found.p) == ((0, 2), 0.0)


# The law of what may come out.


@pytest.mark.parametrize("pairing", ["first-two", "best-worst", "all-pairs", "best", "tilted", "clear-wins:0.6"])
def test_what_compare_returns_is_in_the_law(pairing: str) -> None:
    route, judgement = replace(_route(), pairing=pairing), _scored(0.3, -1.0, 2.0)
    law = comparison_law(route, judgement, 3)
    assert math.fsum(chance for chance, _ in law) == pytest.approx(1, abs=1e-14)
    for uniform in (0.0, 0.3, 0.77, 0.999):
        assert compare(route, judgement, 3, lambda uniform=uniform: uniform) in [found for _, found in law]
