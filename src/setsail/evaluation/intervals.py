"""Confidence intervals: of a share, of a mean, and of a mean of values that come in clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from setsail.core import ConfigError, DataError, stream

# Values drawn at once while bootstrapping: bounds the memory whatever the number of values.
DRAWN_AT_ONCE = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: the share or mean itself.
        low, high: the interval's ends; NaN where there is too little to tell (a single value or cluster).
        confidence: such as 0.95.
        n: number of values behind the estimate.

    >>> print(Interval(0.6123, 0.5714, 0.6519, 0.95, 500))
    0.612 [0.571, 0.652]
    """

    estimate: float
    low: float
    high: float
    confidence: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.estimate:.3f} [no interval, n = {self.n}]"
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def check_confidence(confidence: float) -> float:
    """``confidence``, if it is strictly between 0 and 1.

    Raises:
        ConfigError: it is not.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence}: it is a share strictly between 0 and 1, such as 0.95")
    return confidence


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a share of independent yes-or-no trials.

        center = (k + z^2/2) / (n + z^2),    half width = z / (n + z^2) * sqrt(k (n - k) / n + z^2/4)

    Unlike the normal approximation it stays within [0, 1] and keeps its coverage near 0 and 1.

    Args:
        successes: k, between 0 and ``trials``.
        trials: n, at least 1.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: no trials, or successes outside ``0..trials``.
        ConfigError: ``confidence`` outside (0, 1).

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.

    >>> print(wilson(8, 10))
    0.800 [0.490, 0.943]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise DataError(f"{successes} successes in {trials} trials: an interval takes 0 <= successes <= trials >= 1")
    z = float(stats.norm.ppf(0.5 + check_confidence(confidence) / 2))
    center = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    # Rounding aside, the ends are 0 and 1 exactly when nothing, or everything, succeeds.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return Interval(successes / trials, low, high, confidence, trials)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values and its Student t interval: for a handful of seeds, or many values.

        mean -+ t * s / sqrt(n),    t the quantile with n - 1 degrees of freedom

    For many values it is the normal interval; for five seeds the normal one would be 30 % too narrow.

    Raises:
        DataError: no values, or one that is not finite.
        ConfigError: ``confidence`` outside (0, 1).

    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2.000 [-0.484, 4.484]
    """
    array = _finite(values)
    check_confidence(confidence)
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return Interval(mean, math.nan, math.nan, confidence, n)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, confidence, n)


def bootstrap_mean(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 4000,
) -> Interval:
    """The mean of values and its bootstrap interval; of independent values, or of values that come in clusters.

    Independent values are resampled one by one (bias-corrected and accelerated, BCa). With ``clusters``, whole
    clusters are resampled and the percentiles of the mean over all drawn values are the interval: answers to one
    prompt are alike, so treating them as independent would make it too narrow.

    Args:
        values: n finite numbers.
        clusters: the cluster, such as the prompt's row id, of each value; None means independent values.
        confidence: two-sided, in (0, 1).
        seed: of the stream that draws the resamples: equal arguments give equal intervals.
        resamples: how many; at least 100.

    Returns:
        NaN ends for one value or one cluster; a zero-width interval where all values are equal.

    Raises:
        DataError: no values, one that is not finite, or another number of clusters than of values.
        ConfigError: ``confidence`` outside (0, 1) or too few resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 14.

    >>> bootstrap_mean([0.0, 1.0, 0.0, 1.0]).estimate
    0.5
    """
    array = _finite(values)
    check_confidence(confidence)
    if resamples < 100:
        raise ConfigError(f"resamples={resamples}: percentiles take at least 100 resamples; 4000 is usual")
    sums, counts = _clustered(array, clusters)
    mean = float(array.mean())
    if len(sums) == 1:
        return Interval(mean, math.nan, math.nan, confidence, len(array))
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean, confidence, len(array))
    generator = stream(seed, "bootstrap")
    if len(sums) == len(array):
        low, high = _bca(array, confidence, resamples, generator)
    else:
        low, high = _percentiles(sums, counts, confidence, resamples, generator)
    return Interval(mean, low, high, confidence, len(array))


def _finite(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(f"an interval takes a list of numbers, at least one; got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataError(f"value {index} is {array[index]}: leave out what is missing, and count it, before averaging")
    return array


def _clustered(array: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of the values of each cluster."""
    if clusters is None:
        return array, np.ones_like(array)
    if len(clusters) != len(array):
        raise DataError(f"{len(clusters)} clusters for {len(array)} values: give the cluster of each value")
    index: dict[Hashable, int] = {}
    which = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    return np.bincount(which, weights=array).astype(np.float64), np.bincount(which).astype(np.float64)


def _bca(array: Floats, confidence: float, resamples: int, generator: np.random.Generator) -> tuple[float, float]:
    result = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, DRAWN_AT_ONCE // len(array)),
        method="BCa",
        rng=generator,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _percentiles(
    sums: Floats, counts: Floats, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    groups = len(sums)
    means: list[Floats] = []
    step = max(1, DRAWN_AT_ONCE // groups)
    for start in range(0, resamples, step):
        drawn = generator.integers(groups, size=(min(step, resamples - start), groups))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
