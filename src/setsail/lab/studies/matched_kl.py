"""Comparing policies at one KL from the reference: raw win rates at different KL say nothing about methods.

A path is ``[(kl, value), ...]``: one method at several strengths or steps, KL(policy || reference) in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from setsail.core import DataError

Path = Sequence[tuple[float, float]]


def check_matched(kls: Mapping[str, float], tolerance: float = 0.02) -> None:
    """Refuse to compare policies that stand at different KL.

    Args:
        kls: KL of each policy, nats, by name.
        tolerance: largest difference that still counts as the same, as a share of the largest KL.

    Raises:
        DataError: they differ by more.

    >>> check_matched({"a": 0.10, "b": 0.101})
    >>> check_matched({"online": 0.104, "offline": 0.015})
    Traceback (most recent call last):
    ...
    setsail.core.errors.DataError: online at 0.104 nats and offline at 0.015 nats stand at different KL from the \
reference; their raw win rates cannot be compared: give each a path over several betas and use `at_matched_kl`
    """
    low, high = min(kls, key=lambda name: kls[name]), max(kls, key=lambda name: kls[name])
    if kls[high] - kls[low] > tolerance * kls[high]:
        raise DataError(
            f"{high} at {kls[high]:.3g} nats and {low} at {kls[low]:.3g} nats stand at different KL from the "
            "reference; their raw win rates cannot be compared: give each a path over several betas and use "
            "`at_matched_kl`"
        )


def at_matched_kl(paths: Mapping[str, Path], kl: float) -> dict[str, float]:
    """The value of each path at one KL, linear in ``sqrt(kl)`` between its points; never beyond them.

    Raises:
        DataError: a path does not reach that KL.

    >>> at_matched_kl({"a": [(0.0, 0.5), (0.16, 0.7)], "b": [(0.01, 0.5), (0.09, 0.6)]}, 0.04)
    {'a': 0.6, 'b': 0.55}
    """
    return {name: _at(name, path, kl) for name, path in paths.items()}


def _at(name: str, path: Path, kl: float) -> float:
    points = sorted(path)
    if not points[0][0] <= kl <= points[-1][0]:
        raise DataError(
            f"{name} was measured from {points[0][0]:.3g} to {points[-1][0]:.3g} nats, which does not reach {kl:.3g}; "
            "measure it at more strengths, or compare at a KL that all reach"
        )
    for (low, before), (high, after) in pairwise(points):
        if low <= kl <= high:
            share = (math.sqrt(kl) - math.sqrt(low)) / (math.sqrt(high) - math.sqrt(low)) if high > low else 0.0
            return before + share * (after - before)
    return points[0][1]
