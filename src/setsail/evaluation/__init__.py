"""Evaluation: numbers about policies, with the uncertainty they have. No model, no judge, no run is touched here.

Win rates and who may judge them, confidence intervals, the divergence from the reference, lengths, and the picture of
reward against KL. What is missing is counted and left out, never scored.
"""

from typing import TYPE_CHECKING, Any

from setsail.evaluation.frontier import FrontierPoint, draw_frontier, undominated
from setsail.evaluation.intervals import Interval, bootstrap_mean, mean_interval, wilson
from setsail.evaluation.lengths import Lengths, describe_lengths
from setsail.evaluation.wins import WinRate, both_orders, check_judge, win_rate

if TYPE_CHECKING:
    from setsail.evaluation.divergence import Divergence, Estimate, kl_divergence

__all__ = [
    "Divergence",
    "Estimate",
    "FrontierPoint",
    "Interval",
    "Lengths",
    "WinRate",
    "bootstrap_mean",
    "both_orders",
    "check_judge",
    "describe_lengths",
    "draw_frontier",
    "kl_divergence",
    "mean_interval",
    "undominated",
    "wilson",
    "win_rate",
]


def __getattr__(name: str) -> Any:
    """Load the divergence, and torch with it, when it is asked for."""
    if name in ("Divergence", "Estimate", "kl_divergence"):
        from setsail.evaluation import divergence

        return getattr(divergence, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
