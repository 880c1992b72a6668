"""Objectives: pure functions of log-probabilities. Tensors in, one loss a pair out.

A pairwise objective is called as ``objective(logps, p)``: ``logps`` a :class:`LogProbs`, ``p`` the probability
that the first completion is preferred (``None`` means 1). It returns the loss of each pair, unreduced. Soft
labels mean the same everywhere: the loss is the average of the two hard-label losses under ``p``.

A group objective is called as ``objective(logps, values)``: ``logps`` a :class:`GroupLogProbs` of K completions of
each prompt, ``values`` one number a completion (a reward, a win rate). It returns the loss of each group.

Transforms take an objective, or its loss, and give another: :func:`self_labeled`, :func:`online_correction`,
:func:`robust`. Nothing here sees a model, a tokenizer or a config.
"""

from setsail.objectives.kl import forward_kl_full, forward_kl_sampled, k1, k3
from setsail.objectives.labels import draw_preference, implicit_preference, preference_entropy
from setsail.objectives.online import leave_one_out, online_correction, self_labeled, self_labeled_sampled
from setsail.objectives.pairwise import dpo, ipo, slic
from setsail.objectives.records import GroupLogProbs, GroupObjective, LogProbs, PairwiseObjective
from setsail.objectives.robust import robust

__all__ = [
    "GroupLogProbs",
    "GroupObjective",
    "LogProbs",
    "PairwiseObjective",
    "dpo",
    "draw_preference",
    "forward_kl_full",
    "forward_kl_sampled",
    "implicit_preference",
    "ipo",
    "k1",
    "k3",
    "leave_one_out",
    "online_correction",
    "preference_entropy",
    "robust",
    "self_labeled",
    "self_labeled_sampled",
    "slic",
]
