"""Which candidates are compared, and when the reference moves."""

from __future__ import annotations

import pytest

from setsail.methods import get
from setsail.pairing import RULES, Standing
from setsail.pairing.rules import all_pairs, best_worst, first_two
from setsail.reference import every, fixed


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_candidates_are_nothing_to_compare(name: str, count: int) -> None:
    alone = [(0,)] if (name, count) == ("best", 1) else []
    assert RULES[name].select(Standing(count, [1.0] * count), lambda: 0.5) == alone


@pytest.mark.parametrize("name", RULES)
def test_pairs_are_distinct_candidates(name: str) -> None:
    pairs = RULES[name].select(Standing(4, [0.3, -1.0, 2.0, 0.5]), lambda: 0.1)
    assert pairs
    assert all(len(set(pair)) == len(pair) and set(pair) <= set(range(4)) for pair in pairs)


def test_first_two_ignores_scores() -> None:
    assert first_two(Standing(5, [0.0, 0.0, 9.0, None, -9.0])) == [(0, 1)]


def test_best_worst_puts_the_best_first() -> None:
    assert best_worst(Standing(4, [0.3, -1.0, 2.0, 0.5])) == [(2, 1)]


@pytest.mark.parametrize("scores", [None, [None, None, None], [1.0, None, None], [0.5, 0.5, 0.5]])
def test_best_worst_compares_nothing_without_two_different_scores(scores: list[float | None] | None) -> None:
    assert best_worst(Standing(3, scores)) == []


def test_best_worst_breaks_ties_by_position() -> None:
    assert best_worst(Standing(4, [2.0, 2.0, 0.0, 0.0])) == [(0, 3)]


def test_all_pairs_counts() -> None:
    assert len(all_pairs(Standing(5))) == 10
    assert len(set(all_pairs(Standing(5)))) == 10


def test_a_fixed_reference_never_moves() -> None:
    assert not fixed().moves
    assert not any(fixed().moves_after(step) for step in range(100))
    assert str(fixed()) == "fixed"


def test_a_moving_reference_moves_at_multiples() -> None:
    rule = every(4, mixup=0.25)
    assert rule.moves
    assert [step for step in range(13) if rule.moves_after(step)] == [4, 8, 12]
    assert str(rule) == "every 4 steps, mixup 0.25"
    assert str(every(4)) == "every 4 steps"


def test_iterative_dpo_moves_its_reference_once_a_round() -> None:
    method = get("iterative-dpo")
    assert method.reference.steps == method.staleness + 1
