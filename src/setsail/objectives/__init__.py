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
from setsail.objectives.divergence_gradients import f_dpg, f_pseudo_reward, log_partition_leave_one_out
from setsail.objectives.divergences import f_dpo
from setsail.objectives.exploration import floored_log_ratio, sample_likelihood
from setsail.objectives.games import nash_policy_gradient, online_ipo, sppo
from setsail.objectives.kl import forward_kl_full, forward_kl_sampled, k1, k3, reverse_kl_full
from setsail.objectives.labels import draw_preference, implicit_preference, preference_entropy
from setsail.objectives.likelihood import likelihood
from setsail.objectives.listwise import lipo, list_net, rank_net
from setsail.objectives.margin_curves import discopop, exo_pair
from setsail.objectives.noisy_labels import robust_dpo
from setsail.objectives.offline_policy_gradient import a_lol
from setsail.objectives.online import leave_one_out, online_correction, self_labeled, self_labeled_sampled
from setsail.objectives.optimal_transport import aot, aot_unpaired
from setsail.objectives.pairwise import dpo, ipo, slic
from setsail.objectives.pairwise_policy_gradient import p3o
from setsail.objectives.plackett_luce import list_mle, plackett_luce_dpo, robust_listwise
from setsail.objectives.policy_gradient import grpo, reinforce, rloo
from setsail.objectives.ranking import pro, rrhf
from setsail.objectives.records import GroupLogProbs, GroupObjective, LogProbs, PairwiseObjective
from setsail.objectives.reference_free import asft, cpo, orpo, simpo, slic_hf
from setsail.objectives.regularizers import negative_entropy, negative_log_likelihood
from setsail.objectives.robust import robust
from setsail.objectives.shaped_margins import (
    cpl,
    dpo_gamma,
    dpo_positive,
    length_normalized_dpo,
    length_regularized_dpo,
    margin_dpo,
)
from setsail.objectives.unpaired import bco, bco_reward_shift, kto, kto_reference_point

SURROGATES = frozenset({nash_policy_gradient, reinforce, rloo, grpo, p3o, f_dpg})
"""Objectives whose gradient on completions of the policy is what counts and whose value means nothing."""

__all__ = [
    "SURROGATES",
    "GroupLogProbs",
    "GroupObjective",
    "LogProbs",
    "PairwiseObjective",
    "a_lol",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "asft",
    "bco",
    "bco_reward_shift",
    "copg",
    "cpl",
    "cpo",
    "discopop",
    "dpo",
    "dpo_gamma",
    "dpo_positive",
    "draw_preference",
    "exo_pair",
    "f_dpg",
    "f_dpo",
    "f_pseudo_reward",
    "floored_log_ratio",
    "forward_kl_full",
    "forward_kl_sampled",
    "grpo",
    "implicit_preference",
    "ipo",
    "k1",
    "k3",
    "kto",
    "kto_reference_point",
    "leave_one_out",
    "length_normalized_dpo",
    "length_regularized_dpo",
    "likelihood",
    "lipo",
    "list_mle",
    "list_net",
    "log_partition_leave_one_out",
    "margin_dpo",
    "nash_policy_gradient",
    "nca_pair",
    "negative_entropy",
    "negative_log_likelihood",
    "online_correction",
    "online_ipo",
    "orpo",
    "p3o",
    "plackett_luce_dpo",
    "preference_entropy",
    "pro",
    "rank_net",
    "reinforce",
    "reverse_kl_full",
    "rloo",
    "robust",
    "robust_dpo",
    "robust_listwise",
    "rrhf",
    "sample_likelihood",
    "self_labeled",
    "self_labeled_sampled",
    "simpo",
    "slic",
    "slic_hf",
    "sppo",
    "sppo_hard",
]
