"""What a soft label means to every pairwise objective: the average of the losses under the two hard labels.

Legend: each tensor has the shape ``(pairs,)``; ``p`` is the probability that the first completion is preferred.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from setsail.objectives.records import LogProbs, check_preference


def label_average(if_first: Tensor, if_second: Tensor, p: Tensor | None, logps: LogProbs) -> Tensor:
    """``p * if_first + (1 - p) * if_second``; exactly ``if_first`` where no ``p`` is given."""
    if p is None:
        return if_first
    check_preference(p, logps)
    return p * if_first + (1 - p) * if_second


def over_both_labels(loss: Callable[[LogProbs], Tensor], logps: LogProbs, p: Tensor | None) -> Tensor:
    """``p * loss(pair) + (1 - p) * loss(swapped pair)``, with ``loss`` that of a pair whose first is preferred.

    For objectives that are no function of the log-ratio difference alone; where they are, this is
    ``p * loss(d) + (1 - p) * loss(-d)``.
    """
    if p is None:
        return loss(logps)
    return label_average(loss(logps), loss(logps.swapped()), p, logps)
