"""Evaluation: numbers about policies, with the uncertainty they have. No model, no judge, no run is touched here.

Win rates (plain, length-controlled, at matched KL) and who may judge them, confidence intervals, the divergence from
the reference, ranking accuracy, what training did to log-probs, lengths and variety, the picture of reward against KL,
and the forms of AlpacaEval and MT-Bench. What is missing is counted and left out, never scored.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from setsail.evaluation.bootstrap import bootstrap_mean
from setsail.evaluation.classes import macro_f1
from setsail.evaluation.displacement import Displacement, likelihood_displacement
from setsail.evaluation.diversity import distinct, self_bleu
from setsail.evaluation.frontier import FrontierPoint, draw_frontier, undominated
from setsail.evaluation.intervals import Interval, difference_interval, mean_interval, share_interval, wilson
from setsail.evaluation.length_control import ControlledWinRate, LengthControlled
from setsail.evaluation.lengths import Lengths, describe_lengths, truncation_rate
from setsail.evaluation.matched import difference_at_kl, reward_at_kl, shared_kl
from setsail.evaluation.outputs import ModelOutput, align_outputs, read_outputs, write_outputs
from setsail.evaluation.questions import Question, read_questions
from setsail.evaluation.ranking import (
    RankingAccuracy,
    idealized_ranking_accuracy,
    needed_loss,
    ranking_accuracy,
    reward_accuracy,
)
from setsail.evaluation.rewards import MeanReward, mean_reward
from setsail.evaluation.wins import WinRate, both_orders, check_judge, win_rate

if TYPE_CHECKING:
    from setsail.evaluation.divergence import Divergence, Estimate, kl_divergence
    from setsail.evaluation.entanglement import Entanglement, entanglement_of, normalized_direction

__all__ = [
    "ControlledWinRate",
    "Displacement",
    "Divergence",
    "Entanglement",
    "Estimate",
    "FrontierPoint",
    "Interval",
    "LengthControlled",
    "Lengths",
    "MeanReward",
    "ModelOutput",
    "Question",
    "RankingAccuracy",
    "WinRate",
    "align_outputs",
    "bootstrap_mean",
    "both_orders",
    "check_judge",
    "describe_lengths",
    "difference_at_kl",
    "difference_interval",
    "distinct",
    "draw_frontier",
    "entanglement_of",
    "idealized_ranking_accuracy",
    "kl_divergence",
    "likelihood_displacement",
    "macro_f1",
    "mean_interval",
    "mean_reward",
    "needed_loss",
    "normalized_direction",
    "ranking_accuracy",
    "read_outputs",
    "read_questions",
    "reward_accuracy",
    "reward_at_kl",
    "self_bleu",
    "share_interval",
    "shared_kl",
    "truncation_rate",
    "undominated",
    "wilson",
    "win_rate",
    "write_outputs",
]

_WITH_TORCH = {
    "Divergence": "divergence",
    "Estimate": "divergence",
    "kl_divergence": "divergence",
    "Entanglement": "entanglement",
    "entanglement_of": "entanglement",
    "normalized_direction": "entanglement",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch, and torch with it, when it is asked for."""
    if name in _WITH_TORCH:
        return getattr(import_module(f"setsail.evaluation.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
