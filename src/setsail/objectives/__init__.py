"""Objectives: pure functions of log-probabilities. Tensors in, one loss a pair out.

A pairwise objective is called as ``objective(logps, p)``: ``logps`` a :class:`LogProbs`, ``p`` the probability
that the first completion is preferred (``None`` means 1). It returns the loss of each pair, unreduced. Soft
labels mean the same everywhere: the loss is the average of the two hard-label losses under ``p``.

A group objective is called as ``objective(logps, values)``: ``logps`` a :class:`GroupLogProbs` of K completions of
each prompt, ``values`` one number a completion (a reward, a win rate). It returns the loss of each group.

Transforms take an objective, or its loss, and give another: :func:`self_labeled`, :func:`online_correction`,
:func:`robust`. Nothing here sees a model, a tokenizer or a config.
"""

from setsail.objectives.anchored import apo_down, apo_zero, nca_pair, sppo_hard
from setsail.objectives.contrastive import copg
from setsail.objectives.divergences import f_dpo
from setsail.objectives.exploration import floored_log_ratio, sample_likelihood
from setsail.objectives.games import nash_policy_gradient, online_ipo, sppo
from setsail.objectives.kl import forward_kl_full, forward_kl_sampled, k1, k3
from setsail.objectives.labels import draw_preference, implicit_preference, preference_entropy
from setsail.objectives.likelihood import likelihood
from setsail.objectives.margin_curves import discopop, exo_pair
from setsail.objectives.noisy_labels import robust_dpo
from setsail.objectives.online import leave_one_out, online_correction, self_labeled, self_labeled_sampled
from setsail.objectives.optimal_transport import aot, aot_unpaired
from setsail.objectives.pairwise import dpo, ipo, slic
from setsail.objectives.records import GroupLogProbs, GroupObjective, LogProbs, PairwiseObjective
from setsail.objectives.reference_free import asft, cpo, orpo, simpo, slic_hf
from setsail.objectives.robust import robust
from setsail.objectives.shaped_margins import (
    cpl,
    dpo_gamma,
    dpo_positive,
    length_normalized_dpo,
    length_regularized_dpo,
    margin_dpo,
)

__all__ = [
    "GroupLogProbs",
    "GroupObjective",
    "LogProbs",
    "PairwiseObjective",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "asft",
    "copg",
    "cpl",
    "cpo",
    "discopop",
    "dpo",
    "dpo_gamma",
    "dpo_positive",
    "draw_preference",
    "exo_pair",
    "f_dpo",
    "floored_log_ratio",
    "forward_kl_full",
    "forward_kl_sampled",
    "implicit_preference",
    "ipo",
    "k1",
    "k3",
    "leave_one_out",
    "length_normalized_dpo",
    "length_regularized_dpo",
    "likelihood",
    "margin_dpo",
    "nash_policy_gradient",
    "nca_pair",
    "online_correction",
    "online_ipo",
    "orpo",
    "preference_entropy",
    "robust",
    "robust_dpo",
    "sample_likelihood",
    "self_labeled",
    "self_labeled_sampled",
    "simpo",
    "slic",
    "slic_hf",
    "sppo",
    "sppo_hard",
]
