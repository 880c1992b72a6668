"""Confidence intervals in closed form: of a share, of a mean, and of a difference on the same prompts.

Values may come in clusters (the answers to one prompt); then clusters, not values, are the independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from setsail.core import ConfigError, DataError

Floats = NDArray[np.float64]
# A variance of a mean of values in [0, 1] below this is rounding.
NOTHING = 1e-24


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
    low, high = _score_ends(successes / trials, trials, z)
    return Interval(successes / trials, low, high, confidence, trials)


def share_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """The mean of values in [0, 1], such as a win rate with ties, and its score interval.

    It is Wilson's interval of as many yes-or-no trials as are worth what was seen:

        n* = m (1 - m) / v,    v = G/(G - 1) sum_g (s_g - m c_g)^2 / (sum_g c_g)^2

    with m the mean, s_g and c_g the sum and the number of the values of cluster g of G, and Student's t with G - 1
    degrees of freedom in place of z. Ties and undecided judges vary less than wins and losses, and make n* larger
    than the number of values; clusters of like values make it smaller. Where all clusters agree nothing varies, and
    n* is the number of clusters: unanimity is not certainty. Independent wins and losses get Wilson's own.

    Args:
        values: n numbers in [0, 1].
        clusters: the cluster, such as the prompt's row id, of each value; None means independent values.
        confidence: two-sided, in (0, 1).

    Returns:
        NaN ends for a single cluster of several values, or a single value that is neither 0 nor 1.

    Raises:
        DataError: no values, one outside [0, 1], or another number of clusters than of values.
        ConfigError: ``confidence`` outside (0, 1).

    Source: Wilson's interval with an effective sample size, as surveys use it: Korn and Graubard, Survey Methodology
    24 (1998), 193-201, who put the effective size into another interval; the variance is that of a ratio of sums.

    >>> print(share_interval([1, 0.5, 0, 0.5, 1, 1, 0.5, 1]))
    0.688 [0.365, 0.894]
    """
    array = finite(values)
    check_confidence(confidence)
    if array.min() < 0 or array.max() > 1:
        index = int(np.flatnonzero((array < 0) | (array > 1))[0])
        raise DataError(f"value {index} is {array[index]}: a share is the mean of values in [0, 1]")
    sums, counts = clustered(array, clusters)
    mean, groups = float(array.mean()), len(sums)
    binary = bool(((array == 0) | (array == 1)).all())
    if binary and groups == len(array):
        return wilson(float(array.sum()), len(array), confidence)
    if groups == 1:
        return Interval(mean, math.nan, math.nan, confidence, len(array))
    variance = _variance(mean, sums, counts)
    if variance < NOTHING:
        quantile, trials = float(stats.norm.ppf(0.5 + confidence / 2)), float(groups)
    else:
        quantile, trials = float(stats.t.ppf(0.5 + confidence / 2, groups - 1)), mean * (1 - mean) / variance
    low, high = _score_ends(mean, trials, quantile)
    return Interval(mean, low, high, confidence, len(array))


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, *, clusters: Sequence[Hashable] | None = None
) -> Interval:
    """The mean of values and its Student t interval: for a handful of seeds, or many values.

        mean -+ t * s / sqrt(n),    t the quantile with n - 1 degrees of freedom

    For many values it is the normal interval; for five seeds the normal one would be 30 % too narrow. With
    ``clusters``, clusters are the independent draws: ``s / sqrt(n)`` is the standard error of a ratio of sums over
    clusters, and t has as many degrees of freedom as there are clusters, less one.

    Raises:
        DataError: no values, one that is not finite, or another number of clusters than of values.
        ConfigError: ``confidence`` outside (0, 1).

    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2.000 [-0.484, 4.484]
    """
    array = finite(values)
    check_confidence(confidence)
    sums, counts = clustered(array, clusters)
    mean, n = float(array.mean()), len(array)
    if len(sums) == 1:
        return Interval(mean, math.nan, math.nan, confidence, n)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(sums) - 1)) * math.sqrt(_variance(mean, sums, counts))
    return Interval(mean, mean - half, mean + half, confidence, n)


def difference_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """How much more the first scores than the second on the same prompts: the t interval of the mean difference.

    Differences prompt by prompt leave out what makes a prompt easy or hard for both, so this is narrower than what
    two separate intervals suggest, by ``sqrt(1 - correlation)`` for equal variances. Two policies differ where it
    leaves out 0, also where their own intervals overlap.

    Args:
        first, second: a number a prompt (reward, outcome against a third), in the same order.
        clusters: what comparisons share, as in :func:`mean_interval`.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: lists of different lengths, or what :func:`mean_interval` refuses.
        ConfigError: ``confidence`` outside (0, 1).

    >>> print(difference_interval([0.9, 0.4, 0.7], [0.8, 0.2, 0.6]))
    0.133 [-0.010, 0.277]
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} values: a difference takes both on the same prompts")
    return mean_interval(list(finite(first) - finite(second)), confidence, clusters=clusters)


def finite(values: Sequence[float]) -> Floats:
    """The values as an array.

    Raises:
        DataError: no values, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(f"an interval takes a list of numbers, at least one; got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataError(f"value {index} is {array[index]}: leave out what is missing, and count it, before averaging")
    return array


def clustered(array: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of the values of each cluster, in order of appearance; each value alone without clusters.

    Raises:
        DataError: another number of clusters than of values.
    """
    if clusters is None:
        return array, np.ones_like(array)
    if len(clusters) != len(array):
        raise DataError(f"{len(clusters)} clusters for {len(array)} values: give the cluster of each value")
    index: dict[Hashable, int] = {}
    which = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    return np.bincount(which, weights=array).astype(np.float64), np.bincount(which).astype(np.float64)


def _variance(mean: float, sums: Floats, counts: Floats) -> float:
    """Of a mean over clusters that are drawn whole; for clusters of one the usual ``s^2 / n``."""
    groups = len(sums)
    residuals = sums - mean * counts
    return groups / (groups - 1) * float((residuals**2).sum()) / float(counts.sum()) ** 2


def _score_ends(share: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's ends; trials need not be whole."""
    shrink = z * z / trials
    center = (share + shrink / 2) / (1 + shrink)
    half = z / (1 + shrink) * math.sqrt(share * (1 - share) / trials + shrink / (4 * trials))
    # Rounding aside, the ends are 0 and 1 exactly when nothing, or everything, succeeds.
    low = 0.0 if share == 0 else max(0.0, center - half)
    high = 1.0 if share == 1 else min(1.0, center + half)
    return low, high
