"""Every method setsail ships, one expression each; what is said about them in words stands in ``cards.toml``.

The defaults are ours where the card says so; presets are named settings, such as a paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from setsail import objectives as o
from setsail.core import ConfigError, nearest
from setsail.methods.cards import carded
from setsail.methods.parts import (
    CHOSEN,
    DRAWN,
    GREEDY,
    REJECTED,
    Source,
    forward_kl,
    on_policy,
    on_policy_self_labeled,
    optimism,
    self_labeled_dataset,
    token_forward_kl,
)
from setsail.methods.parts import likelihood_of_preferred as nll
from setsail.methods.shapes import (
    DPO,
    ONLINE,
    ROUNDS,
    best_worst,
    drawn_groups,
    imitation,
    judged,
    lists,
    pairs,
    singles,
)
from setsail.methods.spec import Method
from setsail.reference import average, every, one_move_behind

POLICY, REFERENCE, OPPONENT = (Source(origin=who) for who in ("policy", "reference", "opponent"))
WIDE = Source(origin="policy", count=2, sampling=(("temperature", 2.0), ("top_k", 10)))
TO_REFERENCE, FROM_REFERENCE = Source(origin="mixture", share=0.5), Source(origin="mixture", share=-0.5)
MANY_REFERENCE = Source(origin="reference", count=None)

COMPOSITIONS: Mapping[str, Method] = {
    # Offline pairs.
    "dpo": DPO,
    "ipo": pairs(o.ipo, beta=0.1, length_normalize=True),
    "slic": pairs(o.slic, beta=0.1),
    "cdpo": pairs(o.dpo, beta=0.1, label_smoothing=0.1),
    "rdpo": pairs(o.robust_dpo, beta=0.1, label_smoothing=0.1),
    "f-dpo": pairs(o.f_dpo, beta=0.1, divergence="jensen_shannon", alpha=0.5),
    "dpo-gamma": pairs(o.dpo_gamma, beta=0.1, reference_weight=0.5),
    "dpo-positive": pairs(o.dpo_positive, beta=0.1, penalty=50.0),
    "dpo-length": pairs(o.length_regularized_dpo, beta=0.1, length_weight=0.2),
    "dpo-per-token": pairs(o.length_normalized_dpo, beta=5.0),
    "dpo-margin": pairs(o.margin_dpo, beta=0.1, scale=1.0),
    "cpl": pairs(o.cpl, beta=0.2, bias=0.75, reference_free=False),
    "exo": pairs(o.exo_pair, beta=0.1, label_smoothing=1e-3),
    "discopop": pairs(o.discopop, beta=0.05, tau=0.05),
    "nca": pairs(o.nca_pair, beta=0.01),
    "apo-zero": pairs(o.apo_zero, beta=0.1),
    "apo-down": pairs(o.apo_down, beta=0.1),
    "sppo-hard": pairs(o.sppo_hard, beta=1e-3),
    "rpo": pairs(o.dpo, nll(coefficient=5e-5, per_token=False), beta=0.01, label_smoothing=0.0),
    "rpo-per-token": pairs(o.dpo, nll(coefficient=0.2), beta=0.5, label_smoothing=0.0),
    # Offline pairs, without a reference.
    "simpo": pairs(o.simpo, beta=2.5, gamma=0.5),
    "cpo": pairs(o.cpo, nll(coefficient=1.0), beta=0.1),
    "orpo": pairs(o.orpo, nll(coefficient=1.0), beta=0.1),
    "asft": pairs(o.asft, nll(coefficient=1.0), beta=1.0, odds_scale=1.0),
    "slic-hf": pairs(o.slic_hf, nll(coefficient=0.5, per_token=False), beta=1.0, delta=1.0),
    # Lists of scored answers.
    "pl-dpo": lists(o.plackett_luce_dpo, beta=0.1),
    "robust-listwise": lists(o.robust_listwise, beta=0.1, radius=0.05),
    "lipo": lists(o.lipo, beta=0.05),
    "rank-net": lists(o.rank_net, beta=0.05),
    "list-net": lists(o.list_net, beta=0.05, temperature=1.0),
    "pro": lists(o.pro, nll(coefficient=0.05, per_token=False), beta=1.0),
    "rrhf": lists(o.rrhf, nll(coefficient=1.0, per_token=False), beta=1.0),
    "a-lol": lists(o.a_lol, facts={"baseline": "group-mean"}, beta=0.0, importance_ratio=True, clip=0.9),
    # Answers marked one by one.
    "kto": singles(o.kto, {"reference_point": "mismatched"}, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0),
    "bco": singles(o.bco, {"shift": "midpoint"}, beta=0.1),
    # SAIL.
    "sail-ddp": DPO.with_parts(routes=(self_labeled_dataset(weight=0.4, coefficient=0.2),)),
    "sail-dpp": DPO.with_parts(routes=(on_policy_self_labeled(weight=0.3, coefficient=0.2),)),
    "sail-dpr": DPO.with_parts(routes=(on_policy(weight=0.3),)),
    "sail-mix": DPO.with_parts(
        routes=(
            self_labeled_dataset(weight=0.2, coefficient=0.2),
            on_policy_self_labeled(weight=0.15, coefficient=0.2),
            on_policy(weight=0.15),
        )
    ),
    "sail-revkl": DPO.with_parts(routes=(on_policy(weight=0.3),), addends=(forward_kl(coefficient=1e-3),)),
    "sail-robust": DPO.with_parts(routes=(on_policy(weight=0.3),), robust_radius=0.05),
    "oracle-robust": ONLINE.with_parts(robust_radius=0.05),
    # Fresh pairs, labeled.
    "online-dpo": ONLINE,
    "online-ipo": ONLINE.with_parts(objective=o.ipo, parameters={"beta": 0.1, "length_normalize": True}),
    "oaif": ONLINE,
    "oaif-ipo": ONLINE.with_parts(objective=o.ipo, parameters={"beta": 1.0, "length_normalize": False}),
    "oaif-slic": ONLINE.with_parts(objective=o.slic, parameters={"beta": 0.002}),
    "apl": ONLINE.with_parts(routes=(on_policy(weight=1.0, acquire=0.5),)),
    "samplers-mix-r": ONLINE.with_parts(
        routes=(
            judged(POLICY, POLICY, weight=0.5, name="uniform"),
            judged(*DRAWN, weight=0.5, name="tilted", pairing="tilted"),
        ),
        generations=8,
    ),
    "samplers-mix-p": ONLINE.with_parts(
        routes=(
            judged(POLICY, POLICY, weight=0.5, name="uniform"),
            judged(FROM_REFERENCE, TO_REFERENCE, weight=0.5, name="tilted"),
        )
    ),
    # Rounds.
    "iterative-dpo": ROUNDS,
    "rlhf-workflow": best_worst(8),
    "self-rewarding": best_worst(4, judge="self"),
    "dice": ROUNDS.with_parts(
        routes=(
            judged(*DRAWN, name="implicit", preference="implicit", weight=0.5, pairing="best-worst", label="hard"),
        ),
        offline=True,
        opponent=one_move_behind(16),
        generations=16,
    ),
    "spin": ROUNDS.with_parts(routes=(judged(CHOSEN, POLICY, name="spin", preference="first"),)),
    "apo-accelerated": ROUNDS.with_parts(reference=every(16, momentum=0.3)),
    "salsa": ONLINE.with_parts(soup_share=0.5),
    # Selection and likelihood.
    "rs-dpo": ONLINE.with_parts(
        routes=(judged(MANY_REFERENCE, pairing="clear-wins:0.85", label="hard", name="selected"),), generations=16
    ),
    "raft": imitation(on_policy(weight=1.0, pairing="best"), generations=8, staleness=15),
    "best-of-n": imitation(judged(MANY_REFERENCE, pairing="best", name="selected"), generations=16),
    "superhf": imitation(
        on_policy(weight=1.0, pairing="best"), generations=16, addends=(token_forward_kl(coefficient=0.35),)
    ),
    # Exploration.
    "xpo": ONLINE.with_parts(routes=(judged(POLICY, REFERENCE),), addends=(optimism(coefficient=1e-5),)),
    "selm": ROUNDS.with_parts(
        parameters={"beta": 0.01, "label_smoothing": 0.0},
        routes=(
            judged(Source(origin="reference", sampling=GREEDY), CHOSEN, REJECTED, pairing="best-worst", label="hard"),
        ),
        addends=(optimism(coefficient=1e-5, function=o.floored_log_ratio),),
    ),
    # Games.
    "sppo": best_worst(5, objective=o.sppo, parameters={"beta": 1e-3}, label="preference", values="win-rates"),
    "dno": ROUNDS.with_parts(routes=(on_policy(weight=1.0, label="win-rates"),), generations=5),
    "inpo": best_worst(
        8, objective=o.ipo, parameters={"beta": 7.5e-3, "length_normalize": False}, reference=every(16, anchor=1 / 3)
    ),
    "nash-md": ONLINE.with_parts(
        objective=o.nash_policy_gradient,
        parameters={"beta": 8e-3},
        routes=(judged(POLICY, Source(origin="mixture", share=0.125)),),
    ),
    "nash-ema": ONLINE.with_parts(
        objective=o.nash_policy_gradient,
        parameters={"beta": 8e-3},
        routes=(judged(POLICY, OPPONENT),),
        opponent=average(1e-3),
    ),
    "egpo": ONLINE.with_parts(
        objective=o.online_ipo,
        parameters={"beta": 0.1},
        routes=(judged(WIDE, POLICY, values="last"),),
        update="extragradient",
    ),
    # Policy gradients.
    "reinforce": drawn_groups(o.reinforce, 1, facts={"baseline": "batch-mean"}, pairing="each", beta=0.1),
    "rloo": drawn_groups(o.rloo, 4, beta=0.1),
    "grpo": drawn_groups(o.grpo, 8, facts={"old_policy": "sampling"}, beta=0.04, clip=0.2, scale_rewards=True),
    "p3o": drawn_groups(o.p3o, 2, facts={"old_policy": "sampling"}, beta=0.1, clip=0.2, joint=False),
    "copg": drawn_groups(o.copg, 2, beta=0.06),
    "f-dpg": drawn_groups(o.f_dpg, 4, facts={"old_policy": "sampling"}, beta=0.1, divergence="forward_kl"),
    "pf-reinforce": drawn_groups(
        o.reinforce, 5, facts={"baseline": "batch-mean"}, pairing="rank-filter:best-random", beta=0.1
    ),
}

CATALOGUE: Mapping[str, Method] = MappingProxyType(
    {name: carded(name, method) for name, method in COMPOSITIONS.items()}
)


def names() -> tuple[str, ...]:
    """Names of all methods, in the order of the catalogue."""
    return tuple(CATALOGUE)


def get(name: str) -> Method:
    """The method called ``name``.

    Raises:
        ConfigError: no such method; the message names the nearest one.

    >>> get("dpo").routes
    ()
    """
    if name not in CATALOGUE:
        raise ConfigError(
            f"unknown method {name!r}{nearest(name, CATALOGUE)}; `setsail methods` lists all {len(CATALOGUE)}"
        )
    return CATALOGUE[name]
