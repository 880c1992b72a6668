"""Labelers: who says which of a prompt's candidates is preferred.

A labeler has a ``name`` and ``label(groups) -> list[Judgement]``; nothing inherits from anything. A preference is a
probability, and what cannot be judged is missing: counted and dropped, never a number. :func:`resolve` turns what a
user gives (a function, a model, a name, a list) into a labeler, :class:`MissingGuard` stops a run whose labeler fails.
"""

from typing import TYPE_CHECKING, Any

from setsail.labelers.combined import Combined
from setsail.labelers.comparing import PreferenceFunction
from setsail.labelers.forms import resolve
from setsail.labelers.functions import RewardFunctions
from setsail.labelers.guard import MissingGuard
from setsail.labelers.implicit import ImplicitReward
from setsail.labelers.scores import judgement_from_scores, missing_judgement
from setsail.labelers.scripted import Scripted
from setsail.labelers.self_judge import SelfJudge

if TYPE_CHECKING:
    from setsail.labelers.reward_model import RewardModel

__all__ = [
    "Combined",
    "ImplicitReward",
    "MissingGuard",
    "PreferenceFunction",
    "RewardFunctions",
    "RewardModel",
    "Scripted",
    "SelfJudge",
    "judgement_from_scores",
    "missing_judgement",
    "resolve",
]


def __getattr__(name: str) -> Any:
    """Load the reward model, and torch with it, when it is asked for."""
    if name == "RewardModel":
        from setsail.labelers.reward_model import RewardModel

        return RewardModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
