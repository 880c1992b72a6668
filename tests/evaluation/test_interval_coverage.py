"""Whether intervals of 95 % cover the truth 95 times in 100, on simulated data of the sizes that people have.

Seeds are fixed, so that each figure is one number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from setsail.core import stream
from setsail.evaluation import (
    Interval,
    bootstrap_mean,
    difference_interval,
    kl_divergence,
    mean_interval,
    share_interval,
    wilson,
    win_rate,
)

Array = NDArray[np.float64]
SIZES = (50, 200, 800)


def _covered(truth: float, intervals: list[Interval]) -> float:
    return float(np.mean([found.low <= truth <= found.high for found in intervals]))


def _about_95(coverage: float, sets: int = 1000) -> bool:
    """Within three standard errors of a coverage of 95 % itself: 93 to 97 for 1,000 sets."""
    return abs(coverage - 0.95) <= 3 * (0.95 * 0.05 / sets) ** 0.5


@pytest.mark.parametrize("n", SIZES)
def test_wilson_by_enumeration(n: int) -> None:
    """Exactly, over shares from 5 to 95 %: on average 95 %; each share between 92 and 98, since counts are whole."""
    ends = np.array([(found.low, found.high) for found in (wilson(k, n) for k in range(n + 1))])
    coverage = []
    for share in np.linspace(0.05, 0.95, 91):
        inside = (ends[:, 0] <= share) & (share <= ends[:, 1])
        coverage.append(float(stats.binom.pmf(np.arange(n + 1), n, share)[inside].sum()))
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.005)
    assert 0.92 <= min(coverage) <= max(coverage) <= 0.98


# Losses, ties, wins.
TRIPLES = {
    "even": (0.3, 0.4, 0.3),
    "ahead": (0.3, 0.1, 0.6),
    "far ahead": (0.05, 0.05, 0.9),
    "farthest ahead": (0.02, 0.02, 0.96),
}


@pytest.mark.parametrize("odds", TRIPLES.values(), ids=TRIPLES)
def test_win_rates_with_ties_by_enumeration(odds: tuple[float, float, float]) -> None:
    """Every outcome of 50 comparisons; exact: 95.6, 95.6, 93.2, 96.3 %."""
    n, truth, coverage = 50, odds[2] + odds[1] / 2, 0.0
    for wins in range(n + 1):
        ties = np.arange(n - wins + 1)
        counts = np.stack([n - wins - ties, ties, np.full_like(ties, wins)], axis=1)
        for (lost, tied, won), chance in zip(counts, stats.multinomial.pmf(counts, n, odds), strict=True):
            if chance > 1e-8:
                found = share_interval([0.0] * lost + [0.5] * tied + [1.0] * won)
                coverage += chance * (found.low <= truth <= found.high)
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("odds", TRIPLES.values(), ids=TRIPLES)
def test_win_rates_with_ties(odds: tuple[float, float, float], n: int) -> None:
    """1,000 sets each."""
    outcomes = stream(n, "ties", str(odds)).choice([0.0, 0.5, 1.0], p=odds, size=(1000, n))
    coverage = _covered(odds[2] + odds[1] / 2, [share_interval(each) for each in outcomes])
    assert _about_95(coverage), coverage


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("a", "b"), [(0.3, 0.3), (0.05, 0.5)])
def test_win_rates_of_a_judge_that_gives_probabilities(a: float, b: float, n: int) -> None:
    """Nearly certain verdicts, as judges give them, one of them at a win rate of 9 %; 1,000 sets each."""
    outcomes = stream(n, "probabilities", str(a)).beta(a, b, size=(1000, n))
    coverage = _covered(a / (a + b), [share_interval(each) for each in outcomes])
    assert _about_95(coverage), coverage


@pytest.mark.parametrize("prompts", SIZES)
@pytest.mark.parametrize("equal", [True, False])
def test_win_rates_over_prompts_with_several_answers(equal: bool, prompts: int) -> None:
    """A win rate of its own at each prompt, on average 0.8; four answers, or one to eight. 1,000 sets each."""
    generator = stream(prompts, "clusters", int(equal))
    found = []
    for _ in range(1000):
        counts = np.full(prompts, 4) if equal else generator.integers(1, 9, size=prompts)
        rates = np.repeat(generator.beta(4.0, 1.0, size=prompts), counts)
        wins = (generator.random(len(rates)) < rates).astype(np.float64)
        found.append(share_interval(wins, clusters=np.repeat(np.arange(prompts), counts).tolist()))
    assert _about_95(_covered(0.8, found)), _covered(0.8, found)


def test_where_nearly_all_agree_a_bootstrap_sees_too_little_vary() -> None:
    """96 % wins, 2 % ties, 50 comparisons: why win rates have a score interval."""
    outcomes = stream(1, "agreement").choice([0.0, 0.5, 1.0], p=TRIPLES["farthest ahead"], size=(400, 50))
    assert _covered(0.97, [win_rate(each).rate for each in outcomes]) > 0.93
    assert _covered(0.97, [bootstrap_mean(each, resamples=300) for each in outcomes]) < 0.9


REWARDS: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "normal": (lambda generator, n: generator.normal(1.0, 2.0, size=n), 1.0),
    "skewed": (lambda generator, n: generator.exponential(size=n), 1.0),
    "two-humped": (lambda generator, n: generator.normal(3.0 * (generator.random(n) < 0.3), 1.0), 0.9),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", REWARDS)
def test_mean_rewards(name: str, n: int) -> None:
    """The bootstrap (400 sets) and Student's t (1,000)."""
    draw, truth = REWARDS[name]
    generator = stream(n, "rewards", name)
    coverage = _covered(truth, [bootstrap_mean(draw(generator, n), resamples=400) for _ in range(400)])
    assert _about_95(coverage, 400), coverage
    coverage = _covered(truth, [mean_interval(draw(generator, n)) for _ in range(1000)])
    assert _about_95(coverage), coverage


@pytest.mark.parametrize("prompts", SIZES)
def test_mean_rewards_over_prompts_with_several_answers(prompts: int) -> None:
    """A skewed effect of the prompt, one to eight answers: 400 sets; taken for independent, values cover far less."""
    generator = stream(prompts, "clustered rewards")
    found: dict[str, list[Interval]] = {"bootstrap": [], "t": [], "independent": []}
    for _ in range(400):
        counts = generator.integers(1, 9, size=prompts)
        values = np.repeat(generator.exponential(size=prompts), counts) + generator.normal(size=counts.sum())
        clusters = np.repeat(np.arange(prompts), counts).tolist()
        found["bootstrap"].append(bootstrap_mean(values, clusters=clusters, resamples=400))
        found["t"].append(mean_interval(values, clusters=clusters))
        found["independent"].append(mean_interval(values))
    coverage = {name: _covered(1.0, intervals) for name, intervals in found.items()}
    assert _about_95(coverage["bootstrap"], 400), coverage
    assert _about_95(coverage["t"], 400), coverage
    assert coverage["independent"] < 0.85, coverage


@pytest.mark.parametrize("n", SIZES)
def test_paired_differences(n: int) -> None:
    """Two policies that win 60 and 57 % of the same prompts, alike on 7 prompts of 10: 1,000 sets."""
    generator = stream(n, "paired")
    found = []
    for _ in range(1000):
        first = generator.random(n) < 0.6
        second = np.where(generator.random(n) < 0.7, first, generator.random(n) < 0.5)
        found.append(difference_interval(first.astype(float), second.astype(float)))
    assert _about_95(_covered(0.6 - (0.7 * 0.6 + 0.3 * 0.5), found)), _covered(0.03, found)


@pytest.mark.parametrize("n", [5, *SIZES])
def test_a_few_seeds(n: int) -> None:
    generator = stream(n, "seeds")
    coverage = _covered(0.0, [mean_interval(generator.normal(size=n)) for _ in range(1000)])
    assert _about_95(coverage), coverage


@pytest.mark.parametrize("n", SIZES)
def test_the_divergence(n: int) -> None:
    """KL of answers of 5 to 20 tokens, known exactly: 400 sets of n answers."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.35, 0.35, 0.3])
    generator = stream(n, "divergence")
    found = []
    for _ in range(400):
        lengths = generator.integers(5, 21, size=n)
        ends = np.cumsum(lengths)[:-1]
        ids = generator.choice(3, size=lengths.sum(), p=p)
        found.append(kl_divergence(np.split(np.log(p)[ids], ends), np.split(np.log(q)[ids], ends)).kl())
    coverage = _covered(12.5 * float((p * np.log(p / q)).sum()), found)
    assert _about_95(coverage, 400), coverage
