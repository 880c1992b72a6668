"""Every method setsail ships, one expression each; what is said about them in words stands in ``cards.toml``.

The defaults are ours where the card says so; presets are named settings, such as a paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from setsail.core import ConfigError, nearest
from setsail.methods.cards import carded
from setsail.methods.parts import (
    CHOSEN,
    DRAWN,
    GREEDY,
    REJECTED,
    Route,
    Source,
    forward_kl,
    on_policy,
    on_policy_self_labeled,
    optimism,
    self_labeled_dataset,
    token_forward_kl,
)
from setsail.methods.spec import Method
from setsail.objectives import dpo, floored_log_ratio, ipo, likelihood, nash_policy_gradient, online_ipo, slic, sppo
from setsail.reference import average, every, one_move_behind

POLICY, REFERENCE, OPPONENT = (Source(origin=who) for who in ("policy", "reference", "opponent"))
WIDE = Source(origin="policy", count=2, sampling=(("temperature", 2.0), ("top_k", 10)))
TO_REFERENCE, FROM_REFERENCE = Source(origin="mixture", share=0.5), Source(origin="mixture", share=-0.5)
CHOSEN_BY_RANK: dict[str, Any] = {"pairing": "best-worst", "label": "hard"}


def _judged(*candidates: Source, weight: float = 1.0, name: str = "online", **changes: Any) -> Route:
    return Route(name=name, candidates=candidates, preference="labeler", weight=weight, **changes)


DPO = Method(objective=dpo, parameters={"beta": 0.1, "label_smoothing": 0.0})
IPO = DPO.with_parts(objective=ipo, parameters={"beta": 0.1, "length_normalize": True})
SLIC = DPO.with_parts(objective=slic, parameters={"beta": 0.1})
ONLINE = DPO.with_parts(routes=(on_policy(weight=1.0),), offline=False)
# A round: sixteen optimizer steps whose completions and reference are the policy of the round's start.
ROUNDS = ONLINE.with_parts(reference=every(16), staleness=15)
BEST_WORST = ROUNDS.with_parts(routes=(on_policy(weight=1.0, **CHOSEN_BY_RANK),))
LIKELIHOOD = ONLINE.with_parts(
    objective=likelihood, parameters={"length_normalize": True}, routes=(on_policy(weight=1.0, pairing="best"),)
)

COMPOSITIONS: Mapping[str, Method] = {
    # Offline.
    "dpo": DPO,
    "ipo": IPO,
    "slic": SLIC,
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
    "online-ipo": ONLINE.with_parts(objective=ipo, parameters=IPO.parameters),
    "oaif": ONLINE,
    "oaif-ipo": ONLINE.with_parts(objective=ipo, parameters={"beta": 1.0, "length_normalize": False}),
    "oaif-slic": ONLINE.with_parts(objective=slic, parameters={"beta": 0.002}),
    "apl": ONLINE.with_parts(routes=(on_policy(weight=1.0, acquire=0.5),)),
    "samplers-mix-r": ONLINE.with_parts(
        routes=(
            _judged(POLICY, POLICY, weight=0.5, name="uniform"),
            _judged(*DRAWN, weight=0.5, name="tilted", pairing="tilted"),
        ),
        generations=8,
    ),
    "samplers-mix-p": ONLINE.with_parts(
        routes=(
            _judged(POLICY, POLICY, weight=0.5, name="uniform"),
            _judged(FROM_REFERENCE, TO_REFERENCE, weight=0.5, name="tilted"),
        )
    ),
    # Rounds.
    "iterative-dpo": ROUNDS,
    "rlhf-workflow": BEST_WORST.with_parts(generations=8),
    "self-rewarding": BEST_WORST.with_parts(generations=4, judge="self"),
    "dice": ROUNDS.with_parts(
        routes=(Route(name="implicit", candidates=DRAWN, preference="implicit", weight=0.5, **CHOSEN_BY_RANK),),
        offline=True,
        opponent=one_move_behind(16),
        generations=16,
    ),
    "spin": ROUNDS.with_parts(
        routes=(Route(name="spin", candidates=(CHOSEN, POLICY), preference="first", weight=1.0),)
    ),
    "apo-accelerated": ROUNDS.with_parts(reference=every(16, momentum=0.3)),
    "salsa": ONLINE.with_parts(soup_share=0.5),
    # Selection and likelihood.
    "rs-dpo": ONLINE.with_parts(
        routes=(
            _judged(Source(origin="reference", count=None), pairing="clear-wins:0.85", label="hard", name="selected"),
        ),
        generations=16,
    ),
    "raft": LIKELIHOOD.with_parts(generations=8, staleness=15),
    "superhf": LIKELIHOOD.with_parts(addends=(token_forward_kl(coefficient=0.35),), generations=16),
    # Exploration.
    "xpo": ONLINE.with_parts(routes=(_judged(POLICY, REFERENCE),), addends=(optimism(coefficient=1e-5),)),
    "selm": ROUNDS.with_parts(
        parameters={"beta": 0.01, "label_smoothing": 0.0},
        routes=(_judged(Source(origin="reference", sampling=GREEDY), CHOSEN, REJECTED, **CHOSEN_BY_RANK),),
        addends=(optimism(coefficient=1e-5, function=floored_log_ratio),),
    ),
    # Games.
    "sppo": ROUNDS.with_parts(
        objective=sppo,
        parameters={"beta": 1e-3},
        routes=(on_policy(weight=1.0, pairing="best-worst", values="win-rates"),),
        generations=5,
    ),
    "dno": ROUNDS.with_parts(routes=(on_policy(weight=1.0, label="win-rates"),), generations=5),
    "inpo": BEST_WORST.with_parts(
        objective=ipo,
        parameters={"beta": 7.5e-3, "length_normalize": False},
        reference=every(16, anchor=1 / 3),
        generations=8,
    ),
    "nash-md": ONLINE.with_parts(
        objective=nash_policy_gradient,
        parameters={"beta": 8e-3},
        routes=(_judged(POLICY, Source(origin="mixture", share=0.125)),),
    ),
    "nash-ema": ONLINE.with_parts(
        objective=nash_policy_gradient,
        parameters={"beta": 8e-3},
        routes=(_judged(POLICY, OPPONENT),),
        opponent=average(1e-3),
    ),
    "egpo": ONLINE.with_parts(
        objective=online_ipo,
        parameters={"beta": 0.1},
        routes=(_judged(WIDE, POLICY, values="last"),),
        update="extragradient",
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
