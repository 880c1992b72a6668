"""What a list of scored answers says: which answers count, which are the best and the worst, who lies above the mean.

Answers are known by their index in the list. Scores are plain numbers, higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

MEAN_TOLERANCE = 1e-9
"""How near to its row's mean a score counts as the mean itself, as a share of the row's range of scores: what the
rounding of sums leaves behind is no preference."""


def distinct(answers: Sequence[Hashable], scores: Sequence[float]) -> list[int]:
    """The answers that stay when each is to occur once.

    Of answers that say the same with the same score the first stays. Where their scores differ, the data contradict
    themselves, and none stays.

    >>> distinct(["a", "b", "a", "c", "c"], [1.0, 2.0, 1.0, 3.0, 0.0])
    [0, 1]
    """
    found: dict[Hashable, set[float]] = {}
    first: dict[Hashable, int] = {}
    for index, (answer, score) in enumerate(zip(answers, scores, strict=True)):
        found.setdefault(answer, set()).add(score)
        first.setdefault(answer, index)
    return [index for answer, index in first.items() if len(found[answer]) == 1]


def ends(scores: Sequence[float]) -> tuple[int, int] | None:
    """``(best, worst)``, of equals the first listed; None where nothing is better than anything else.

    >>> ends([2.0, 3.0, 1.0, 3.0]), ends([1.0, 1.0]), ends([])
    ((1, 2), None, None)
    """
    if len(set(scores)) < 2:
        return None
    return scores.index(max(scores)), scores.index(min(scores))


def sides_of_mean(scores: Sequence[float]) -> list[float]:
    """+1 above the mean of the scores, -1 below it, 0 at it.

    >>> sides_of_mean([0.1, 0.2, 0.3, 0.9])
    [-1.0, -1.0, -1.0, 1.0]
    >>> sides_of_mean([0.1, 0.2, 0.3])
    [-1.0, 0.0, 1.0]
    """
    mean = math.fsum(scores) / len(scores)
    near = MEAN_TOLERANCE * (max(scores) - min(scores))
    return [0.0 if abs(score - mean) <= near else math.copysign(1.0, score - mean) for score in scores]
