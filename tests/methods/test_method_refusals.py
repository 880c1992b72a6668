"""Combinations that make no sense are refused when a method is made, by a sentence that says what to use instead."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from setsail.core import SpecError
from setsail.methods import (
    Addend,
    Method,
    Route,
    forward_kl,
    get,
    on_policy,
    on_policy_self_labeled,
    route_loss,
    self_labeled_dataset,
)
from setsail.methods.parts import DATASET, DRAWN, Source
from setsail.objectives import LogProbs, dpo, ipo
from setsail.reference import ReferenceRule, every


def _method(**changes: object) -> Method:
    return get("dpo").with_parts(name="mine", **changes)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    # Acceptance test 12: weights.
    "weight above one": (lambda: on_policy(weight=1.2), "weight must be a probability in [0, 1], got 1.2"),
    "negative weight": (lambda: on_policy(weight=-0.1), "weight must be a probability in [0, 1], got -0.1"),
    "weight nan": (lambda: on_policy(weight=float("nan")), "weight must be a probability in [0, 1], got nan"),
    "weights sum to one": (
        lambda: get("sail-mix").configured(weights={"ddp": 0.5, "dpp": 0.25, "dpr": 0.25}),
        "the route weights (ddp=0.5, dpp=0.25, dpr=0.25) sum to 1, which leaves no offline pairs; keep the sum "
        "below 1, or use online-dpo",
    ),
    "weights exceed one": (
        lambda: get("sail-mix").configured(weights={"ddp": 0.9}),
        "sum to 1.2, which leaves no offline pairs",
    ),
    "online weights below one": (
        lambda: get("online-dpo").configured(weights={"dpr": 0.5}),
        "it has no offline part, so its route weights (dpr=0.5) must sum to 1, not 0.5; use sail-dpr",
    ),
    "only itself": (
        lambda: _method(routes=(on_policy_self_labeled(weight=1.0, coefficient=1.0),), offline=False),
        "a policy that only labels itself cannot start",
    ),
    "only itself names a way out": (
        lambda: _method(routes=(on_policy_self_labeled(weight=1.0, coefficient=1.0),), offline=False),
        "add offline pairs (sail-ddp, sail-dpp) or a labeler (online-dpo)",
    ),
    "no source": (lambda: _method(offline=False), "its route weights () must sum to 1, not 0; use sail-dpr"),
    "two routes of one name": (
        lambda: _method(routes=(on_policy(weight=0.1), on_policy(weight=0.2))),
        "two routes share a name among ['dpr', 'dpr']; metrics would mix, rename one",
    ),
    # Numbers of a route.
    "negative coefficient": (
        lambda: self_labeled_dataset(weight=0.1, coefficient=-1.0),
        "route 'ddp': coefficient must be a number >= 0, got -1.0",
    ),
    "negative correction": (
        lambda: on_policy(weight=0.1, correction=-0.3),
        "route 'dpr': correction must be a number >= 0, got -0.3",
    ),
    "infinite correction": (
        lambda: on_policy(weight=0.1, correction=float("inf")),
        "route 'dpr': correction must be a number >= 0, got inf",
    ),
    # Words of a route.
    "unknown origin": (
        lambda: Source(origin="polcy"),
        "a source's origin must be one of chosen, rejected, policy, reference, opponent, mixture, got 'polcy'; did you "
        "mean 'policy'?",
    ),
    "unknown preference": (
        lambda: Route(name="x", candidates=DRAWN, preference="labelers", weight=0.1),
        "preference must be one of dataset, policy, labeler, first, implicit, got 'labelers'; did you mean 'labeler'?",
    ),
    "unknown labels": (
        lambda: get("sail-ddp").configured(labels="sample"),
        "labels must be one of averaged, sampled, got 'sample'; did you mean 'sampled'?",
    ),
    "unknown pairing": (
        lambda: get("sail-dpr").configured(pairing="best_worst"),
        "there is no pairing rule 'best_worst'; did you mean 'best-worst'?",
    ),
    # Combinations of a route.
    "self-labels chosen by score": (
        lambda: get("sail-dpp").configured(pairing="best-worst"),
        "best-worst pairs are chosen by score, but the policy labels its own pairs without scores; use pairing=",
    ),
    "offline pairs as a route": (
        lambda: Route(name="x", candidates=DATASET, preference="dataset", weight=0.1),
        "are the offline pairs, which need no route; leave it out",
    ),
    "no preference between fresh answers": (
        lambda: Route(name="x", candidates=DRAWN, preference="dataset", weight=0.1),
        "the data set holds no preference between completions that are drawn; use preference='labeler' "
        "(a reward) or 'policy' (self-labeling)",
    ),
    "correction on the data set": (
        lambda: get("sail-ddp").configured(corrections={"ddp": 0.1}),
        "a correction of 0.1 belongs to completions drawn from the policy, but these come from the data set; set the "
        "correction to 0 or draw all of them from the policy",
    ),
    "correction on chosen pairs": (
        lambda: get("sail-dpr").configured(corrections={"dpr": 0.1}, pairing="best-worst"),
        "the online correction needs independent draws, but best-worst pairs are chosen by score; use "
        "pairing='first-two' or set the correction to 0",
    ),
    "correction on stale pairs": (
        lambda: get("sail-dpr").configured(corrections={"dpr": 0.1}, staleness=3),
        "the online correction of route 'dpr' needs completions of the current weights, but staleness 3 lets them be "
        "older; set staleness to 0 or the correction to 0",
    ),
    "sampled self-labels of ipo": (
        lambda: get("sail-ddp").with_parts(name="mine", objective=ipo, parameters={"beta": 0.1}).configured(labels="sampled"),
        "sampled self-labels need a loss that is the label's negative log-likelihood (dpo, no label smoothing, no "
        "robust radius); use labels='averaged'",
    ),
    "sampled self-labels with smoothing": (
        lambda: get("sail-dpp").configured(labels="sampled", parameters={"label_smoothing": 0.1}),
        "use labels='averaged', which is exact for every objective",
    ),
    "sampled robust self-labels": (
        lambda: get("sail-dpp").configured(labels="sampled", robust_radius=0.1),
        "use labels='averaged', which is exact for every objective",
    ),
    # Parameters.
    "unknown parameter": (
        lambda: get("ipo").configured(parameters={"label_smoothing": 0.1}),
        "its objective ipo takes no 'label_smoothing'; it takes beta, length_normalize",
    ),
    "no beta": (lambda: _method(parameters={}), "its parameters hold no beta"),
    "beta of zero": (
        lambda: get("dpo").configured(parameters={"beta": 0}),
        "beta must be positive, got 0.0; it scales the KL penalty",
    ),
    "smoothing of a half": (
        lambda: get("dpo").configured(parameters={"label_smoothing": 0.5}),
        "label_smoothing must lie in [0, 0.5), got 0.5",
    ),
    "robust radius": (
        lambda: get("dpo").configured(robust_radius=1.5),
        "robust_radius is a label error in [0, 1], got 1.5",
    ),
    "negative staleness": (
        lambda: get("sail-dpr").configured(staleness=-1),
        "staleness must be 0 or more optimizer steps",
    ),
    # Names that a method does not have.
    "no such route": (
        lambda: get("sail-dpp").configured(weights={"ddp": 0.1}),
        "sail-dpp has no route 'ddp' to give a weight (its routes: dpp); did you mean 'dpp'?",
    ),
    "no routes at all": (
        lambda: get("dpo").configured(corrections={"dpr": 0.1}),
        "dpo has no route 'dpr' to give a correction (its routes: none)",
    ),
    "no such addend": (
        lambda: get("sail-revkl").configured(addends={"forward-kl": 0.1}),
        "sail-revkl has no addend 'forward-kl' to give a coefficient (its addends: forward_kl); did you "
        "mean 'forward_kl'?",
    ),
    "no such preset": (
        lambda: get("sail-dpp").preset("publshed"),
        "sail-dpp has no preset 'publshed' (it has: published); did you mean 'published'?",
    ),
    "no presets at all": (lambda: get("dpo").preset("published"), "dpo has no preset 'published' (it has: none)"),
    # Addends and references.
    "negative addend": (lambda: forward_kl(coefficient=-1.0), "addend 'forward_kl': coefficient must be a number >= 0"),
    "infinite addend": (
        lambda: Addend(name="x", samples="reference", function=lambda p, q: p, coefficient=float("inf")),
        "addend 'x': coefficient must be a number >= 0, got inf",
    ),
    "reference steps": (lambda: every(0), "cannot move every 0 steps; give 1 or more, or None to keep it fixed"),
    "reference mixup": (lambda: every(4, mixup=0.0), "a share in (0, 1] of the policy's weights, got 0.0"),
    "reference mixup above": (lambda: ReferenceRule(4, 1.5), "a share in (0, 1] of the policy's weights, got 1.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_combination_without_meaning_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(SpecError, match=re.escape(message)):
        make()


def test_sampled_labels_need_uniforms() -> None:
    zero = torch.zeros(1)
    method = get("sail-ddp").configured(labels="sampled")
    with pytest.raises(ValueError, match="route 'ddp' samples its labels: pass one uniform draw a pair"):
        route_loss(method, method.routes[0], LogProbs(zero, zero, zero, zero).group(), None)


def test_a_method_names_itself_in_its_refusals() -> None:
    with pytest.raises(SpecError, match=r"^online-dpo: "):
        get("online-dpo").configured(weights={"dpr": 0.5})


def test_dpo_with_smoothing_is_still_accepted_where_labels_are_averaged() -> None:
    assert get("sail-dpp").configured(parameters={"label_smoothing": 0.1}).objective is dpo
