"""Filters by rank (arXiv 2409.06957): closed forms for uniform rewards, ranks within a prompt, other group sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from setsail.core import stream
from setsail.pairing import Standing, rule
from setsail.pairing.rules import best_or_worst, best_random, each

BEST_RANDOM, BEST_WORST = rule("rank-filter:best-random"), rule("rank-filter:best-worst")
Weights = Callable[[int], list[float]]


def _best(count: int) -> list[float]:
    return [1.0] + [0.0] * (count - 1)


def _alike(count: int) -> list[float]:
    return [1 / count] * count


def _moments(weights: list[float]) -> tuple[float, float]:
    """Mean and variance of what is kept of rewards uniform on (-1, 1), from order statistics.

    The k-th best of n uniform quantiles is Beta(n + 1 - k, k): mean ``a / (n + 1)``, second moment
    ``a (a + 1) / ((n + 1) (n + 2))`` with ``a = n + 1 - k``.
    """
    n = len(weights)
    first = sum(w * (n - k) / (n + 1) for k, w in enumerate(weights))
    second = sum(w * (n - k) * (n - k + 1) / ((n + 1) * (n + 2)) for k, w in enumerate(weights))
    return 2 * first - 1, 4 * (second - first**2)


@pytest.mark.parametrize(
    ("weights", "mean", "variance"),
    [
        (_best, 2 / 3, 0.079365),
        (best_random, 1 / 4, 0.342262),
        (best_or_worst, 0.0, 0.523810),
        (_alike, 0.0, 0.333333),
    ],
)
def test_the_rewards_kept_of_five_uniform_ones(weights: Weights, mean: float, variance: float) -> None:
    found = _moments(weights(5))
    assert found[0] == pytest.approx(mean, abs=1e-12)
    assert found[1] == pytest.approx(variance, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "mean"), [("best", 2 / 3), ("rank-filter:best-random", 0.25), ("rank-filter:best-worst", 0.0)]
)
def test_the_rules_keep_the_rewards_that_their_weights_promise(name: str, mean: float) -> None:
    """20,000 prompts of five answers, through the rule's own draws."""
    random, kept = stream(7, "rank-filter"), 0.0
    chosen = rule(name)
    for _ in range(20_000):
        rewards = (2 * random.random(5) - 1).tolist()
        [(index,)] = chosen.select(Standing(5, rewards), lambda: float(random.random()))
        kept += rewards[index] / 20_000
    assert kept == pytest.approx(mean, abs=0.015)


@pytest.mark.parametrize(
    ("weights", "divergence"),
    [(_best, math.log(5) - 4 / 5), (best_random, 0.108317), (best_or_worst, 0.196269), (_alike, 0.0)],
)
def test_the_divergence_of_what_is_kept_from_the_sampler(weights: Weights, divergence: float) -> None:
    """In quantiles: the density of the kept one is a mixture of betas, integrated by the midpoint rule."""
    shares, grid = weights(5), 20_000
    total = 0.0
    for i in range(grid):
        q = (i + 0.5) / grid
        density = sum(w * 5 * math.comb(4, k) * q ** (4 - k) * (1 - q) ** k for k, w in enumerate(shares))
        total += density * math.log(density) / grid
    assert total == pytest.approx(divergence, abs=2e-6)


def test_every_prompt_keeps_one_answer_of_its_own() -> None:
    """Ranks are those within a prompt: offsets between prompts, which a batch-wide rank would see, change nothing."""
    random = stream(8, "rank-filter")
    within = (2 * random.random((64, 5)) - 1).tolist()
    for prompt, rewards in enumerate(within):
        offset = -3 + 6 * prompt / 63
        for chosen in (BEST_RANDOM, BEST_WORST):
            shifted = chosen.law(Standing(5, [offset + reward for reward in rewards]))
            assert shifted == chosen.law(Standing(5, rewards))
            assert all(len(groups) == 1 for _, groups in shifted)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
def test_half_of_the_weight_is_on_the_best_whatever_the_number(count: int) -> None:
    scores = [float((3 * i) % count) for i in range(count)] if count % 3 else [float(-i) for i in range(count)]
    top, bottom = scores.index(max(scores)), scores.index(min(scores))
    laws = {
        chosen.name: {groups[0][0]: chance for chance, groups in chosen.law(Standing(count, scores))}
        for chosen in (BEST_RANDOM, BEST_WORST)
    }
    random = laws[BEST_RANDOM.name]
    assert random[top] == 0.5
    assert set(random) == set(range(count))
    assert all(chance == 0.5 / (count - 1) for index, chance in random.items() if index != top)
    assert laws[BEST_WORST.name] == {top: 0.5, bottom: 0.5}
    assert math.fsum(random.values()) == pytest.approx(1, abs=1e-15)


def test_answers_without_a_value_are_out_of_the_ranking() -> None:
    law = BEST_RANDOM.law(Standing(4, [None, 1.0, None, 2.0]))
    assert law == [(0.5, [(3,)]), (0.5, [(1,)])]
    assert BEST_WORST.law(Standing(3, [None, None, 0.3])) == [(1.0, [(2,)])]
    assert BEST_RANDOM.law(Standing(2, [None, None])) == BEST_RANDOM.law(Standing(2)) == [(1.0, [])]


def test_of_equals_the_first_is_the_best_and_the_last_the_worst() -> None:
    assert BEST_WORST.law(Standing(3, [1.0, 1.0, 1.0])) == [(0.5, [(0,)]), (0.5, [(2,)])]


def test_each_is_every_answer_by_itself_in_the_order_drawn() -> None:
    assert each(Standing(4, [0.1, None, 2.0, -1.0])) == [(0,), (2,), (3,)]
    assert each(Standing(2, [1.0, 1.0])) == [(0,), (1,)]
    assert each(Standing(1, [0.0])) == [(0,)]
    assert each(Standing(2)) == []


@pytest.mark.parametrize("name", ["each", "all", "rank-filter:best-random", "rank-filter:best-worst"])
def test_a_policy_gradient_counts_what_is_kept_as_plain_draws(name: str) -> None:
    assert rule(name).as_drawn
    assert not rule("best").as_drawn
