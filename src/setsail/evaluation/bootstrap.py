"""The bootstrap interval of a mean, of independent values or of clusters of them.

Axis legend: ``clusters`` drawn whole (a value alone is a cluster of one), ``resamples`` of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from scipy import special, stats

from setsail.core import ConfigError, stream
from setsail.evaluation.intervals import Floats, Interval, check_confidence, clustered, finite

# Values drawn at once while bootstrapping: bounds the memory whatever the number of values.
DRAWN_AT_ONCE = 4_000_000
LEAST_RESAMPLES = 100


def bootstrap_mean(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 4000,
) -> Interval:
    """The mean of values and its bootstrap interval; of independent values, or of values that come in clusters.

    Whole clusters are resampled: answers to one prompt are alike, so treating them as independent would make the
    interval too narrow. The ends are quantiles of the resampled means, bias-corrected and accelerated (BCa, the
    acceleration from leaving out one cluster at a time), and widened for few clusters:

        q(z) = Phi(b + (b + z) / (1 - a (b + z))),    z = -+ sqrt(G / (G - 1)) t

    with G clusters, t Student's quantile with G - 1 degrees of freedom, b the normal quantile of the share of
    resampled means below the mean, and a the acceleration. For rewards and other skewed values; shares are better
    served by :func:`share_interval`, differences by :func:`difference_interval`.

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

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 14. The widening is that of
    the expanded percentile interval, arXiv 1411.5279; here it goes into BCa.

    >>> bootstrap_mean([0.0, 1.0, 0.0, 1.0]).estimate
    0.5
    """
    array = finite(values)
    check_confidence(confidence)
    check_resamples(resamples)
    sums, counts = clustered(array, clusters)
    mean = float(array.mean())
    if len(sums) == 1:
        return Interval(mean, math.nan, math.nan, confidence, len(array))
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean, confidence, len(array))
    means = np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws(len(sums), resamples, seed)])
    z = wide_normal(confidence, len(sums))
    bias, acceleration = _bias(means, mean), _acceleration(sums, counts)
    levels = special.ndtr([bias + (bias + end) / (1 - acceleration * (bias + end)) for end in (-z, z)])
    low, high = np.quantile(means, levels)
    return Interval(mean, float(low), float(high), confidence, len(array))


def check_resamples(resamples: int) -> None:
    """Refuse too few resamples for a percentile.

    Raises:
        ConfigError: fewer than 100.
    """
    if resamples < LEAST_RESAMPLES:
        raise ConfigError(f"resamples={resamples}: percentiles take at least {LEAST_RESAMPLES}; 4000 is usual")


def draws(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Indices of the clusters that each resample draws, ``(some resamples, clusters)`` at a time."""
    generator = stream(seed, "bootstrap")
    step = max(1, DRAWN_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        yield generator.integers(clusters, size=(min(step, resamples - start), clusters))


def wide_normal(confidence: float, clusters: int) -> float:
    """The normal quantile that gives percentiles of the bootstrap the width of a t interval.

    >>> round(wide_normal(0.95, 10), 3), round(wide_normal(0.95, 800), 3)
    (2.385, 1.964)
    """
    return math.sqrt(clusters / (clusters - 1)) * float(stats.t.ppf(0.5 + confidence / 2, clusters - 1))


def _bias(means: Floats, mean: float) -> float:
    """Normal quantile of the share of resampled means below the mean; those equal to it count half."""
    below = float((means < mean).mean() + (means == mean).mean() / 2)
    least = 0.5 / len(means)
    return float(special.ndtri(min(max(below, least), 1 - least)))


def _acceleration(sums: Floats, counts: Floats) -> float:
    """From the means without one cluster each: their skewness, over six times the root of their number."""
    without = (sums.sum() - sums) / (counts.sum() - counts)
    deviations = without.mean() - without
    spread = float((deviations**2).sum())
    return float((deviations**3).sum()) / (6 * spread**1.5) if spread else 0.0
