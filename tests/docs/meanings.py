"""What the numbers of a settings table mean, by objective and by argument: the words beside each flag."""

from __future__ import annotations

PLAIN = frozenset({"beta", "label_smoothing", "length_normalize"})
"""Arguments of objectives that have a flag of their own; the others go through ``--objective_parameters``."""

PARAMETERS = {
    "label_smoothing": "eps, the assumed share of flipped labels",
    "length_normalize": "divide each log-prob by its completion's length",
    "alpha": "read by the alpha divergence only, in (0, 1): near 0 reverse KL, near 1 forward KL",
    "bias": "lambda of the paper, in (0, 1]: multiplies the score of the other answer; 1 is no bias",
    "clip": "eps: ratios to the policy that drew the answers count within 1 - eps and 1 + eps",
    "delta": "margin that the hinge asks for, nats",
    "desirable_weight": "lambda of answers marked good",
    "gamma": "margin asked for, in units of the logit: the gap of the mean log-probs is gamma/beta",
    "importance_ratio": "weigh each answer by its ratio to the reference",
    "joint": "clip the pair's log-ratio difference instead of each ratio",
    "length_weight": "alpha of the paper, logits a token: the longer the winner, the less it teaches",
    "odds_scale": "multiplies the log odds; other than 1 is a tempered form",
    "penalty": "lambda of the paper: how often the chosen answer's fall below the reference counts",
    "radius": "rho: the largest share of rankings that may be wrong, in [0, 1]",
    "reference_free": "leave the reference out of the scores",
    "reference_weight": "gamma of the paper: the share of the reference's ranking; 1 is DPO, 0 reference-free",
    "scale": "logits a unit of value: the margin asked for is scale abs(v1 - v2)",
    "scale_rewards": "divide by the group's standard deviation",
    "tau": "width of the transition, in units of u",
    "temperature": "of the softmax over scores, in units of the scores: the larger, the softer the labels",
    "undesirable_weight": "lambda of answers marked bad",
}
OF_AN_OBJECTIVE = {
    ("a_lol", "clip"): "eps: ratios to the reference count within 1 - eps and 1 + eps",
    ("exo_pair", "label_smoothing"): "eps, the doubt that a hard label keeps: the margin aimed at is logit(1 - eps)",
    ("f_dpo", "divergence"): "reverse_kl, forward_kl, jensen_shannon or alpha",
    ("f_dpg", "divergence"): "forward_kl, reverse_kl, total_variation, jensen_shannon, forward_chi2 or reverse_chi2",
    ("robust_dpo", "label_smoothing"): "eps, the known share of flipped labels",
}
"""Where an argument means something else than under the same name elsewhere."""

IMPLICIT = "scale of the implicit reward, `u = beta d`: the larger, the closer to the reference"
EACH = "scale of the implicit reward `beta h` of each answer: the larger, the closer to the reference"
PENALTY = "strength of the KL penalty to the reference, in units of reward a nat"
OWN = "scale of the difference of log-probs; there is no reference to stay close to"
MEANS = "scale of mean log-probs, nats a token, inside the loss; there is no reference to stay close to"
BETA = {
    "dpo": IMPLICIT,
    "ipo": "the margin aimed at is `d = 1/(2 beta)`: the larger, the closer to the reference",
    "slic": "the hinge is at `d = 1/beta`: the larger, the closer to the reference",
    "sppo": "1/eta of the paper: the log-ratio aimed at is `(w - 1/2)/beta`, w the win rate",
    "sppo_hard": "1/eta of the paper: the log-ratios aimed at are `1/(2 beta)` and `-1/(2 beta)`",
    "online_ipo": "strength of the KL penalty: the margin aimed at is the difference of the values over beta",
    "nash_policy_gradient": "tau of the paper, strength of the KL penalty to the reference",
    "robust_dpo": IMPLICIT,
    "f_dpo": "strength of the penalty to the reference; its scale depends on the divergence",
    "dpo_gamma": "scale of the margin: the larger, the closer to the reference",
    "dpo_positive": IMPLICIT,
    "length_regularized_dpo": IMPLICIT,
    "length_normalized_dpo": "scale of the mean log-ratios, nats a token: far larger than for sums",
    "margin_dpo": IMPLICIT,
    "cpl": "alpha of the paper, scale of the implicit reward: the larger, the closer to the reference",
    "exo_pair": IMPLICIT,
    "discopop": IMPLICIT,
    "nca_pair": "alpha of the paper; the chosen answer rests at `h = log(2)/beta`: the larger, the closer",
    "apo_zero": EACH,
    "apo_down": EACH,
    "simpo": MEANS,
    "cpo": OWN,
    "orpo": "lambda of the paper: weight of the odds term beside the likelihood, no scale inside it",
    "asft": "lambda of the paper: weight of the odds terms beside the likelihood, no scale inside them",
    "slic_hf": OWN,
    "plackett_luce_dpo": EACH,
    "robust_listwise": EACH,
    "lipo": EACH,
    "rank_net": EACH,
    "list_net": EACH,
    "pro": MEANS,
    "rrhf": MEANS,
    "a_lol": "coefficient of the log-ratio, 0 or more; on logged answers it only lowers every advantage",
    "kto": "how fast gains and losses saturate with the log-ratio: the larger, the closer to the reference",
    "bco": EACH,
    "reinforce": PENALTY,
    "rloo": PENALTY,
    "grpo": "coefficient of the k3 penalty beside normalized rewards",
    "p3o": PENALTY,
    "copg": PENALTY,
    "f_dpg": "temperature of the target `ref exp(r / beta)`: the larger, the closer to the reference",
}
"""What beta means, by objective: the same letter stands for a scale, a penalty or the inverse of a step."""

ADDENDS = {
    "forward_kl": "gamma of the penalty",
    "token_forward_kl": "gamma of the penalty",
    "optimism": "multiplies the mean of the term, log-probs in nats",
    "likelihood": "multiplies -log pi of the preferred answer, nats {unit}",
}
