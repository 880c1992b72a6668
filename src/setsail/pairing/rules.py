"""Rules that turn K candidates of a prompt into the index pairs to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

PairingRule = Callable[[int, Sequence[float | None] | None], list[tuple[int, int]]]
"""``rule(number of candidates, their scores or None) -> index pairs``; an empty list = nothing to compare."""


def first_two(count: int, scores: Sequence[float | None] | None = None) -> list[tuple[int, int]]:
    """The first two draws: an independent pair, whatever they scored.

    >>> first_two(4)
    [(0, 1)]
    """
    return [(0, 1)] if count >= 2 else []


def best_worst(count: int, scores: Sequence[float | None] | None = None) -> list[tuple[int, int]]:
    """The best-scored against the worst-scored candidate; candidates without a score are left out.

    The two are no longer independent draws of the policy, so the online correction does not apply to them.

    >>> best_worst(4, [0.1, None, 2.0, -1.0])
    [(2, 3)]
    """
    if scores is None:
        return []
    scored = [(score, -index) for index, score in enumerate(scores) if score is not None]
    if len(scored) < 2 or max(scored)[0] == min(scored)[0]:
        return []
    return [(-max(scored)[1], -min(scored)[1])]


def all_pairs(count: int, scores: Sequence[float | None] | None = None) -> list[tuple[int, int]]:
    """Every unordered pair of candidates.

    >>> all_pairs(3)
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(combinations(range(count), 2))


RULES: Mapping[str, PairingRule] = MappingProxyType(
    {"first-two": first_two, "best-worst": best_worst, "all-pairs": all_pairs}
)
