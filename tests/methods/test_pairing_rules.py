"""Which candidates are compared: selections, their laws, ties, missing values, names and thresholds."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations, product

import pytest

from setsail.core import SpecError, stream
from setsail.pairing import RULES, PairingRule, Standing, rule, win_rates
from setsail.pairing.rules import Groups, all_pairs, best, best_worst, clear_wins, everyone, first_two, tilted

EVERY = [*RULES.values(), rule("clear-wins:0.8")]
each_rule = pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
CYCLE = ((0.5, 0.9, 0.2), (0.1, 0.5, 0.8), (0.8, 0.2, 0.5))


def _standing(scores: list[float | None]) -> Standing:
    """Candidates with Bradley-Terry preferences of their scores."""
    matrix = tuple(tuple(None if a is None or b is None else 1 / (1 + math.exp(b - a)) for b in scores) for a in scores)
    return Standing(len(scores), scores, matrix)


@each_rule
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_candidates_are_nothing_to_compare(each: PairingRule, count: int) -> None:
    alone = [(0,)] if each.size == 1 and count == 1 else []
    assert each.select(_standing([1.0] * count), lambda: 0.5) == alone


@each_rule
def test_groups_are_distinct_candidates_of_the_stated_size(each: PairingRule) -> None:
    groups = each.select(_standing([0.3, -1.0, 2.0, 0.5]), lambda: 0.1)
    assert groups
    assert all(len(set(group)) == len(group) and set(group) <= set(range(4)) for group in groups)
    assert all(each.size in (None, len(group)) for group in groups)
    assert len(set(groups)) == len(groups)


@each_rule
def test_a_law_sums_to_one(each: PairingRule) -> None:
    for scores in ([0.3, -1.0, 2.0, 0.5], [1.0, 1.0, 1.0], [None, 0.5, 0.1], [None, None], []):
        outcomes = each.law(_standing(scores))
        assert math.fsum(chance for chance, _ in outcomes) == pytest.approx(1, abs=1e-14)
        assert all(chance > 0 for chance, _ in outcomes)


@each_rule
def test_only_rules_that_read_values_notice_them(each: PairingRule) -> None:
    laws = [each.law(_standing(scores)) for scores in ([0.3, -1.0, 2.0], [2.0, 0.3, -1.0], [1.0, None, 1.0])]
    assert any(law != each.law(Standing(3)) for law in laws) == each.reads_values


@each_rule
def test_the_number_of_draws_is_one_where_there_is_a_choice(each: PairingRule) -> None:
    calls: list[float] = []

    def uniform() -> float:
        calls.append(0.5)
        return 0.5

    each.select(_standing([0.3, -1.0, 2.0]), uniform)
    assert len(calls) == int(each.name == "tilted" or each.name.startswith("rank-filter"))


def test_first_two_ignores_scores() -> None:
    assert first_two(Standing(5, [0.0, 0.0, 9.0, None, -9.0])) == [(0, 1)]


# Best and worst.


def test_best_worst_puts_the_best_first() -> None:
    assert best_worst(Standing(4, [0.3, -1.0, 2.0, 0.5])) == [(2, 1)]


@pytest.mark.parametrize("scores", [None, [None, None, None], [1.0, None, None], [0.5, 0.5, 0.5]])
def test_best_worst_compares_nothing_without_two_different_scores(scores: list[float | None] | None) -> None:
    assert best_worst(Standing(3, scores)) == []


def test_best_worst_breaks_ties_by_position() -> None:
    assert best_worst(Standing(4, [2.0, 2.0, 0.0, 0.0])) == [(0, 3)]


def test_the_first_of_two_best_answers_wins() -> None:
    """The published selection of iterative training on best and worst (arXiv 2405.07863)."""
    assert best_worst(Standing(5, [0.3, 2.1, -1.0, 2.1, 0.9])) == [(1, 2)]


def test_best_keeps_one_also_where_all_are_alike() -> None:
    """Leaving ties out would change the law of what is imitated."""
    assert best(Standing(4, [0.1, 2.0, 2.0, -1.0])) == [(1,)]
    assert best(Standing(3, [1.0, 1.0, 1.0])) == [(0,)]
    assert best(Standing(3, [None, None, 1.0])) == [(2,)]
    assert best(Standing(2, [None, None])) == best(Standing(2)) == []


def test_everyone_is_one_group_of_those_with_a_value() -> None:
    assert everyone(Standing(4, [0.1, None, 2.0, -1.0])) == [(0, 2, 3)]
    assert everyone(Standing(2, [1.0, None])) == everyone(Standing(2)) == []


def test_everyone_counts_also_where_all_are_alike() -> None:
    """A tie says nothing of the reward, but a penalty acts on its answers too."""
    assert everyone(Standing(3, [1.0, 1.0, None])) == [(0, 1)]


def test_all_pairs_counts() -> None:
    assert all_pairs(Standing(5)) == list(combinations(range(5), 2))
    assert len(all_pairs(Standing(5))) == 10


# Clear wins.


def test_clear_wins_are_all_ordered_pairs_from_the_threshold_on() -> None:
    standing = Standing(3, preference=CYCLE)
    assert clear_wins(0.8)(standing) == [(0, 1), (1, 2), (2, 0)]
    assert clear_wins(0.85)(standing) == [(0, 1)]
    assert clear_wins(0.95)(standing) == []
    assert clear_wins(0.8)(Standing(3, [1.0, 2.0, 3.0])) == []


def test_a_missing_preference_is_no_win() -> None:
    matrix = ((0.5, None, 0.9), (None, 0.5, 0.9), (0.1, 0.1, 0.5))
    assert clear_wins(0.8)(Standing(3, preference=matrix)) == [(0, 2), (1, 2)]


@pytest.mark.parametrize("scores", [[0.0, 1.0, 3.0, 3.5], [1.0, 1.0], [-2.0, None, 2.0]])
def test_clear_wins_are_score_gaps_beyond_the_logit(scores: list[float | None]) -> None:
    """arXiv 2402.10038 keeps pairs whose reward gap exceeds a threshold."""
    gap = math.log(0.85 / 0.15)
    n = range(len(scores))
    wanted = [
        (i, j) for i in n for j in n if scores[i] is not None and scores[j] is not None and scores[i] - scores[j] >= gap
    ]
    assert clear_wins(0.85)(_standing(scores)) == wanted


@pytest.mark.parametrize("text", ["0.5", "0.3", "1.01", "nan", "", "high", "0.8:0.9", "-1"])
def test_a_threshold_is_a_probability_above_one_half(text: str) -> None:
    with pytest.raises(SpecError, match=r"clear-wins needs the probability above 1/2 .*, like clear-wins:0\.8, got"):
        rule(f"clear-wins:{text}")


def test_the_threshold_of_one_asks_for_certainty() -> None:
    assert rule("clear-wins:1").select(Standing(2, preference=((0.5, 1.0), (0.0, 0.5))), lambda: 0.0) == [(0, 1)]
    assert rule("clear-wins:0.8").name == "clear-wins:0.8"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best_worst", "there is no pairing rule 'best_worst'; did you mean 'best-worst'"),
        ("clear-win", "did you mean 'clear-wins:0.8'"),
        ("best:2", "there is no pairing rule 'best:2'"),
        ("rank-filter", "did you mean 'rank-filter:best"),
        ("rank-filter:best", "there is no pairing rule 'rank-filter:best'"),
        ("rank-filter:worst", "did you mean 'rank-filter:best-worst'"),
        ("every", "there is no pairing rule 'every'"),
        (
            "",
            "the rules are first-two, best-worst, all-pairs, best, all, each, rank-filter:best-random, "
            "rank-filter:best-worst, tilted, clear-wins:0.8",
        ),
    ],
)
def test_an_unknown_rule_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        rule(name)


@pytest.mark.parametrize("name", RULES)
def test_rules_are_found_by_their_names(name: str) -> None:
    assert rule(name) is RULES[name]


# Tilted.


def _brute_force(scores: list[float | None]) -> dict[tuple[tuple[int, ...], ...], float]:
    """The chance of each outcome, from two independent draws with the weights exp(s) and exp(-s)."""
    given = [(index, score) for index, score in enumerate(scores) if score is not None]
    law: dict[tuple[tuple[int, ...], ...], float] = defaultdict(float)
    whole = sum(math.exp(a) for _, a in given) * sum(math.exp(-b) for _, b in given)
    for (i, a), (j, b) in product(given, repeat=2):
        law[((i, j),) if i != j else ()] += math.exp(a) * math.exp(-b) / whole
    return dict(law)


def _gathered(law: list[tuple[float, Groups]]) -> dict[tuple[tuple[int, ...], ...], float]:
    found: dict[tuple[tuple[int, ...], ...], float] = defaultdict(float)
    for chance, groups in law:
        found[tuple(groups)] += chance
    return dict(found)


@pytest.mark.parametrize(
    "scores", [[0.0, 1.0], [0.3, -1.0, 2.0, 0.5], [1.0, 1.0, 1.0], [0.4, None, -0.7, None], [-3.0, 4.0, 4.0]]
)
def test_the_law_of_tilted_pairs_is_that_of_two_draws(scores: list[float | None]) -> None:
    found, wanted = _gathered(tilted(Standing(len(scores), scores))), _brute_force(scores)
    assert found.keys() == wanted.keys()
    for groups, chance in wanted.items():
        assert found[groups] == pytest.approx(chance, abs=1e-14)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_a_constant_on_all_scores_tilts_nothing_and_overflows_nothing(shift: float) -> None:
    plain, shifted = (_gathered(tilted(Standing(3, [s + by for s in (0.0, 1.0, -0.5)]))) for by in (0.0, shift))
    assert shifted == pytest.approx(plain, abs=1e-11)


@pytest.mark.parametrize("scores", [None, [None, None], [1.0, None], [1.0]])
def test_tilting_needs_two_scores(scores: list[float | None] | None) -> None:
    assert tilted(Standing(len(scores or [0, 0]), scores)) == [(1.0, [])]


@pytest.mark.parametrize("scores", [[0.3, -1.0, 2.0], [1.0, 1.0]])
def test_selecting_draws_from_the_law(scores: list[float]) -> None:
    """Uniforms on a fine grid hit each outcome as often as its probability says."""
    standing, size = Standing(len(scores), scores), 20_000
    counts: dict[tuple[tuple[int, ...], ...], int] = defaultdict(int)
    for number in range(size):
        counts[tuple(RULES["tilted"].select(standing, lambda number=number: (number + 0.5) / size))] += 1
    for groups, chance in _gathered(tilted(standing)).items():
        assert counts[groups] / size == pytest.approx(chance, abs=len(scores) ** 2 / size)


def test_the_largest_uniform_still_selects() -> None:
    standing = Standing(3, [0.1, 0.2, 0.7])
    assert RULES["tilted"].select(standing, lambda: 1.0) == tilted(standing)[-1][1]


# Win rates.


def test_a_win_rate_leaves_out_the_comparison_with_oneself() -> None:
    """Five scores in even steps (arXiv 2405.00675); counting oneself would give .8093 and .6667."""
    scores = [2.0, 1.0, 0.0, -1.0, -2.0]
    matrix = _standing(scores).preference
    assert matrix is not None
    rates = win_rates(matrix)
    assert rates[:3] == pytest.approx((0.8866, 0.7083, 0.5), abs=5e-5)
    assert sum(matrix[0]) / 5 == pytest.approx(0.8093, abs=5e-5)
    assert math.fsum(rate for rate in rates if rate is not None) == pytest.approx(2.5, abs=1e-14)


def test_a_missing_preference_makes_the_win_rate_missing() -> None:
    assert win_rates(((0.5, 0.9, 0.7), (0.1, 0.5, None), (0.3, None, 0.5))) == (0.8, None, None)
    assert win_rates(((0.5,),)) == (None,)
    assert win_rates(()) == ()
    # The diagonal is never read.
    assert win_rates(((None, 1.0), (0.0, None))) == (1.0, 0.0)


def test_candidates_that_say_the_same_tie_to_the_last_bit() -> None:
    """Whatever the order in which the others stand: a tie that rounding breaks would be a label out of nothing."""
    numbers = stream(0, "win-rates")
    for _ in range(50):
        table = numbers.random((3, 3))
        answers = numbers.integers(0, 3, size=8)
        matrix = [[0.5 if a == b else float(table[a, b]) for b in answers] for a in answers]
        rates = win_rates(matrix)
        for kind in range(3):
            assert len({rate for rate, answer in zip(rates, answers, strict=True) if answer == kind}) <= 1
