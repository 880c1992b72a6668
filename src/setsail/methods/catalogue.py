"""Every method setsail ships, one expression each. The defaults are ours (docs/methods says why); presets are named."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from setsail.core import ConfigError, nearest
from setsail.methods.parts import forward_kl, on_policy, on_policy_self_labeled, self_labeled_dataset
from setsail.methods.spec import Method
from setsail.objectives import dpo, ipo, slic
from setsail.reference import every

SAIL = "arXiv 2406.15567"
NO_CORRECTION = (
    "the response-score term (correction) is off by default: with a Bradley-Terry labeler the plain on-policy gradient "
    "already leads to the optimal policy, and the exact gradient of the paper's objective does not"
)
NO_SELF_CORRECTION = (
    "the response-score term (correction) is off by default: at the start it is nothing but noise, and where "
    "the policy is "
    "its own labeler it only adds to the sharpening"
)
AVERAGED = "labels are averaged instead of sampled: same expected gradient, far less variance"
HOOK = (
    "the correction is the derived term with a leave-one-out baseline; the published code adds one of opposite sign, "
    "divided by the log-prob and outside the batch mean"
)

_DPO = Method(
    name="dpo",
    summary="offline pairs, logistic loss on the implicit reward margin",
    equation="-log sigmoid(beta d),  d = log-ratio(y1) - log-ratio(y2)",
    paper="arXiv 2305.18290",
    objective=dpo,
    parameters={"beta": 0.1, "label_smoothing": 0.0},
)
_IPO = _DPO.but(
    "ipo",
    summary="offline pairs, squared distance of the log-ratio margin to 1/(2 beta)",
    equation="(d - 1/(2 beta))^2",
    paper="arXiv 2310.12036",
    objective=ipo,
    parameters={"beta": 0.1, "length_normalize": True},
    deviations=("log-probs are divided by length, as its authors advise; length_normalize=False is the equation",),
)
_SLIC = _DPO.but(
    "slic",
    summary="offline pairs, hinge loss on the implicit reward margin",
    equation="max(0, 1 - beta d)",
    paper="arXiv 2305.10425",
    objective=slic,
    parameters={"beta": 0.1},
    deviations=("margin of log-ratios to the reference instead of log-probs; no likelihood regularizer",),
)
_SAIL_DDP = _DPO.but(
    "sail-ddp",
    summary="DPO; some rows are labeled again by the policy itself (costs nothing)",
    equation="(1-r) E[-F] + r rho E[H(sigmoid(u))]",
    paper=SAIL,
    routes=(self_labeled_dataset(weight=0.4, coefficient=0.2),),
    deviations=(AVERAGED,),
    presets={"published": {"weights": {"ddp": 0.4}, "coefficients": {"ddp": 0.2}}},
)
_SAIL_DPP = _DPO.but(
    "sail-dpp",
    summary="DPO; some rows become two fresh completions that the policy labels itself",
    equation="(1-p) E[-F] + p pi E_pi[H(sigmoid(u))] (+ correction)",
    paper=SAIL,
    routes=(on_policy_self_labeled(weight=0.3, coefficient=0.2),),
    deviations=(AVERAGED, NO_SELF_CORRECTION, HOOK),
    presets={"published": {"weights": {"dpp": 0.3}, "coefficients": {"dpp": 0.2}, "corrections": {"dpp": 0.2}}},
)
_SAIL_DPR = _DPO.but(
    "sail-dpr",
    summary="DPO; some rows become two fresh completions labeled by a reward model or a program",
    equation="(1-g) E[-F] + g E_pi[-P F(u) - (1-P) F(-u)] (+ correction)",
    paper=SAIL,
    routes=(on_policy(weight=0.3),),
    deviations=("labels are soft where the labeler gives scores", NO_CORRECTION, HOOK),
    presets={"published": {"weights": {"dpr": 0.3}, "corrections": {"dpr": 0.3}}},
)
_SAIL_MIX = _DPO.but(
    "sail-mix",
    summary="DPO with all three SAIL routes at half their usual weight",
    equation="(1-r-p-g) E[-F] + the terms of sail-ddp, sail-dpp and sail-dpr",
    paper=SAIL,
    routes=(
        self_labeled_dataset(weight=0.2, coefficient=0.2),
        on_policy_self_labeled(weight=0.15, coefficient=0.2),
        on_policy(weight=0.15),
    ),
    deviations=(AVERAGED, NO_CORRECTION, HOOK, "the paper states no weights for the mixture; these are ours"),
)
_ONLINE_DPO = _DPO.but(
    "online-dpo",
    summary="every pair is two fresh completions labeled by a reward model or a program",
    equation="E_pi[-P F(u) - (1-P) F(-u)]",
    paper="arXiv 2402.04792",
    routes=(on_policy(weight=1.0),),
    offline=False,
    deviations=("labels are soft where the labeler gives scores",),
)
_ONLINE_IPO = _ONLINE_DPO.but(
    "online-ipo",
    summary="online-dpo with the IPO objective",
    equation="E_pi[P (d - 1/(2 beta))^2 + (1-P) (d + 1/(2 beta))^2]",
    paper="arXiv 2403.08635",
    objective=ipo,
    parameters=_IPO.parameters,
    deviations=(*_ONLINE_DPO.deviations, *_IPO.deviations),
)
_ITERATIVE_DPO = _ONLINE_DPO.but(
    "iterative-dpo",
    summary="online-dpo in rounds: pairs and reference come from the weights at the round's start",
    equation="E_{pi_round}[-P F(u) - (1-P) F(-u)],  pi_ref = pi_round",
    paper="arXiv 2312.16682",
    reference=every(16),
    staleness=15,
    deviations=(
        *_ONLINE_DPO.deviations,
        "rounds of 16 optimizer steps; set staleness_limit and ref_model_sync_steps together to change them",
        "an epoch's end cuts a round: the rest of its pairs are drawn from the weights of that moment",
        "the reference moves every round; sync_ref_model=False keeps the starting policy, as in arXiv 2312.11456",
    ),
)
_SAIL_REVKL = _SAIL_DPR.but(
    "sail-revkl",
    summary="sail-dpr with a penalty on KL(reference || policy), which convexifies the objective",
    equation="sail-dpr + gamma KL(pi_ref || pi)",
    paper="arXiv 2606.31524",
    addends=(forward_kl(coefficient=1e-3),),
    presets={
        "published": {"weights": {"dpr": 0.3}, "corrections": {"dpr": 0.3}, "addends": {"forward_kl": 1e-3}},
    },
    deviations=(
        *_SAIL_DPR.deviations,
        "the penalty is estimated on completions of the reference; published code averages over data set "
        "answers, whose "
        "gradient does not involve the reference",
    ),
)
_SAIL_ROBUST = _SAIL_DPR.but(
    "sail-robust",
    summary="sail-dpr against the worst preference within a radius of each label",
    equation="max over |P' - P| <= rho of sail-dpr  =  sail-dpr + rho E|u| in the interior",
    paper="arXiv 2602.20457",
    robust_radius=0.05,
    presets={},
    deviations=(
        *_SAIL_DPR.deviations,
        "the penalty is exact (also at hard labels) and trained by plain gradient steps, without the proximal step",
        "the paper's radius was not available; 0.05 is that of arXiv 2607.01715",
    ),
)

CATALOGUE: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            _DPO,
            _IPO,
            _SLIC,
            _SAIL_DDP,
            _SAIL_DPP,
            _SAIL_DPR,
            _SAIL_MIX,
            _ONLINE_DPO,
            _ONLINE_IPO,
            _ITERATIVE_DPO,
            _SAIL_REVKL,
            _SAIL_ROBUST,
        )
    }
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
