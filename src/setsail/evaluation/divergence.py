"""How far a policy is from its reference, from the log-probs of the policy's own completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from setsail.core import DataError
from setsail.evaluation.intervals import Interval, check_confidence
from setsail.objectives import k1, k3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean in nats and its standard error (NaN for a single answer)."""

    value: float
    error: float

    def interval(self, n: int, confidence: float = 0.95) -> Interval:
        """The normal interval ``value -+ z * error`` of an estimate from ``n`` answers."""
        from scipy import stats

        half = float(stats.norm.ppf(0.5 + check_confidence(confidence) / 2)) * self.error
        return Interval(self.value, self.value - half, self.value + half, confidence, n)

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.error:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """KL(pi || pi_ref) estimated from completions of pi, in nats.

    Attributes:
        k1, k3: the KL of a whole answer: per-token estimates summed over the answer, averaged over answers.
        k1_per_token, k3_per_token: the same sums divided by the number of tokens of all answers together.
        answers, tokens: how many of each.
    """

    k1: Estimate
    k3: Estimate
    k1_per_token: Estimate
    k3_per_token: Estimate
    answers: int
    tokens: int

    def kl(self, confidence: float = 0.95) -> Interval:
        """The per-answer KL by k3, the estimate that is never negative, with its normal interval."""
        return self.k3.interval(self.answers, confidence)


def kl_divergence(policy: Sequence[Floats], reference: Sequence[Floats]) -> Divergence:
    """KL(pi || pi_ref) of completions drawn from pi at temperature 1 without truncation.

        k1 = log pi - log pi_ref,    k3 = pi_ref/pi - 1 - log(pi_ref/pi)    at each token

    Both are unbiased, token by token and so summed over an answer: k1 varies more and may come out negative, k3 does
    neither unless the two policies are far apart. The standard error treats answers, not tokens, as independent: for
    the per-token figures it is that of a ratio of sums,

        sqrt( n / (n - 1) * sum_i (k_i - R t_i)^2 ) / sum_i t_i,    R = sum k_i / sum t_i.

    Args:
        policy: for each answer, log pi of its tokens, shape ``(tokens,)``, nats. No padding.
        reference: log pi_ref of the same tokens.

    Returns:
        Both estimates, per answer and per token.

    Raises:
        DataError: no answer or no token, shapes that differ, or a log-prob that is not finite.

    >>> import numpy as np
    >>> found = kl_divergence([np.log([0.5, 0.8])], [np.log([0.25, 0.8])])
    >>> round(found.k1.value, 6), round(found.k3.value, 6)
    (0.693147, 0.193147)
    """
    _check(policy, reference)
    lengths = np.array([len(answer) for answer in policy], dtype=np.float64)
    sums = {k: _sums(k, policy, reference) for k in (k1, k3)}
    return Divergence(
        k1=_mean(sums[k1]),
        k3=_mean(sums[k3]),
        k1_per_token=_ratio(sums[k1], lengths),
        k3_per_token=_ratio(sums[k3], lengths),
        answers=len(policy),
        tokens=int(lengths.sum()),
    )


def _check(policy: Sequence[Floats], reference: Sequence[Floats]) -> None:
    if len(policy) != len(reference):
        raise DataError(
            f"{len(policy)} answers of the policy, {len(reference)} of the reference: they must be the same"
        )
    if not sum(len(answer) for answer in policy):
        raise DataError(f"{len(policy)} answers without a token: there is no divergence to estimate")
    for index, (mine, theirs) in enumerate(zip(policy, reference, strict=True)):
        if np.shape(mine) != np.shape(theirs) or np.ndim(mine) != 1:
            raise DataError(
                f"answer {index}: log-probs of shape {np.shape(mine)} by the policy and {np.shape(theirs)} by the "
                "reference; both are one number a token of the answer"
            )
        if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
            raise DataError(f"answer {index} has a log-prob that is not finite, so its divergence is not either")


def _sums(
    estimator: Callable[[Tensor, Tensor], Tensor], policy: Sequence[Floats], reference: Sequence[Floats]
) -> Floats:
    """The estimator summed over each answer, float64."""
    mine, theirs = (torch.from_numpy(np.concatenate(side).astype(np.float64)) for side in (policy, reference))
    answer = np.repeat(np.arange(len(policy)), [len(each) for each in policy])
    sums = np.bincount(answer, weights=estimator(mine, theirs).numpy(), minlength=len(policy))
    return sums.astype(np.float64)


def _mean(values: Floats) -> Estimate:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(value=float(values.mean()), error=error)


def _ratio(sums: Floats, lengths: Floats) -> Estimate:
    n, total = len(sums), float(lengths.sum())
    ratio = float(sums.sum()) / total
    if n == 1:
        return Estimate(value=ratio, error=math.nan)
    residuals = sums - ratio * lengths
    return Estimate(value=ratio, error=math.sqrt(n / (n - 1) * float((residuals**2).sum())) / total)
