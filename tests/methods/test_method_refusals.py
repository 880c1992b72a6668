"""Combinations that make no sense are refused when a method is made, by a sentence that says what to use instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from setsail.core import SpecError
from setsail.methods import Addend, Method, Route, forward_kl, get, on_policy, on_policy_self_labeled, route_loss
from setsail.methods.parts import optimism, token_forward_kl
from setsail.objectives import GroupLogProbs, LogProbs, dpo, ipo, nash_policy_gradient, sppo
from setsail.reference import average, every, fixed, one_move_behind


def _method(**changes: object) -> Method:
    return get("dpo").with_parts(name="mine", **changes)


def _mixed_in(**changes: object) -> Method:
    """Offline pairs beside a route that compares policy and reference."""
    route = replace(get("xpo").routes[0], weight=0.5)
    return get("dpo").with_parts(name="mine", routes=(route,), **changes)


def _turned_around(route: Route) -> Route:
    return replace(route, candidates=route.candidates[::-1])


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
    # Combinations of a route.
    "self-labels chosen by score": (
        lambda: get("sail-dpp").configured(pairing="best-worst"),
        "best-worst pairs are chosen by score, but the policy labels its own pairs without scores; use pairing=",
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
        lambda: (
            get("sail-ddp")
            .with_parts(name="mine", objective=ipo, parameters={"beta": 0.1})
            .configured(labels="sampled")
        ),
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
        "beta must be positive, got 0; it scales the KL penalty",
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
    # Addends.
    "negative addend": (lambda: forward_kl(coefficient=-1.0), "addend 'forward_kl': coefficient must be a number >= 0"),
    "infinite addend": (
        lambda: Addend(name="x", samples="reference", function=lambda p, q: p, coefficient=float("inf")),
        "addend 'x': coefficient must be a number >= 0, got inf",
    ),
    "unknown samples": (
        lambda: Addend(name="x", samples="refrence", function=lambda p, q: p, coefficient=1.0),
        "samples must be one of fresh-reference, reference, policy, preferred, compared, got 'refrence'; did you mean "
        "'reference'?",
    ),
    "two addends of one name": (
        lambda: get("sail-revkl").with_parts(addends=(forward_kl(coefficient=0.1), forward_kl(coefficient=0.2))),
        "two added terms share a name among ['forward_kl', 'forward_kl']; their numbers would mix, rename one",
    ),
    "an addend without completions": (
        lambda: get("online-dpo").with_parts(addends=(optimism(coefficient=0.1),)),
        "addend 'optimism' reads the reference's completions among the candidates, but no route draws from the "
        "reference; add such a source, let it draw its own (samples='fresh-reference')",
    ),
    "an addend on completions of the policy that nobody draws": (
        lambda: get("rs-dpo").with_parts(addends=(replace(optimism(coefficient=0.1), samples="policy"),)),
        "reads the policy's completions among the candidates, but no route draws from the policy",
    ),
    "an addend on a route of weight 0": (
        lambda: _mixed_in(addends=(optimism(coefficient=0.1),)).configured(weights={"online": 0.0}),
        "but no route draws from the reference",
    ),
    "an addend that draws from a product": (
        lambda: get("inpo").with_parts(addends=(forward_kl(coefficient=0.1),)),
        "addend 'forward_kl' draws from the reference, but a product of two policies (anchor 0.333333) has no "
        "completions of its own; drop the anchor or the addend",
    ),
    "next tokens of a product": (
        lambda: get("inpo").with_parts(addends=(token_forward_kl(coefficient=0.1),)),
        "a product of two policies (anchor 0.333333) has no next-token distribution",
    ),
    # Frozen policies.
    "no opponent to draw from": (
        lambda: get("nash-ema").with_parts(opponent=None),
        "route 'online' needs an opponent to draw from or to compare with; give the method one, such as "
        "opponent=fixed()",
    ),
    "no opponent to compare with": (
        lambda: get("dice").with_parts(opponent=None),
        "route 'implicit' needs an opponent to draw from or to compare with",
    ),
    "an opponent with momentum": (
        lambda: get("nash-ema").with_parts(opponent=every(4, momentum=0.3)),
        "momentum and anchor belong to the reference, not to the opponent",
    ),
    "an opponent with an anchor": (
        lambda: get("nash-ema").with_parts(opponent=every(4, anchor=0.3)),
        "momentum and anchor belong to the reference, not to the opponent",
    ),
    "an opponent out of step": (
        lambda: get("dice").with_parts(opponent=one_move_behind(8)),
        "its opponent is to stay one move behind the reference, so both must move every 16 steps, not every 8",
    ),
    "an opponent behind a reference that stays": (
        lambda: get("dice").configured(reference=fixed()),
        "but the reference never moves; let it move, such as every(16)",
    ),
    "an opponent behind a product": (
        lambda: get("dice").configured(reference=every(16, anchor=0.5)),
        "a product of two policies (anchor 0.5) has no weights of its own; let the opponent follow the policy",
    ),
    "a reference that follows itself": (
        lambda: get("iterative-dpo").configured(reference=one_move_behind(16)),
        "a reference follows the policy; only an opponent can follow the reference",
    ),
    "draws from a product": (
        lambda: get("rs-dpo").configured(reference=every(4, anchor=0.25)),
        "route 'selected' draws from the reference, but a product of two policies (anchor 0.25) has no completions of "
        "its own; draw from the policy or an opponent",
    ),
    "a mixture with a product": (
        lambda: get("nash-md").configured(reference=every(4, anchor=0.25)),
        "route 'online' draws from the reference, but a product of two policies",
    ),
    "a soup of more than one": (lambda: get("salsa").with_parts(soup_share=1.5), "soup_share must lie in [0, 1]"),
    "a soup of less than nothing": (lambda: get("salsa").with_parts(soup_share=-0.1), "soup_share must lie in [0, 1]"),
    "no generations": (lambda: get("online-dpo").configured(generations=0), "generations must be at least 1, got 0"),
    # Updates.
    "unknown update": (
        lambda: _method(update="extra-gradient"),
        "mine: update must be 'plain' or 'extragradient', got 'extra-gradient'",
    ),
    "unknown judge": (lambda: _method(judge="myself"), "mine: judge must be None or 'self', got 'myself'"),
    "a look-ahead on stale completions": (
        lambda: get("egpo").configured(staleness=1),
        "an extragradient step needs completions of the current weights, but staleness 1 lets them be older; set "
        "staleness to 0",
    ),
    "a reference that takes over a look-ahead": (
        lambda: get("egpo").configured(reference=every(3)),
        "every first of two extragradient steps is taken back, so its reference would take over weights that are; let "
        "it move after an even number of steps, not every 3",
    ),
    "an opponent that takes over a look-ahead": (
        lambda: get("egpo").with_parts(opponent=average(0.1)),
        "so its opponent would take over weights that are",
    ),
    # A policy gradient is no loss.
    "a policy gradient offline": (
        lambda: _mixed_in(objective=nash_policy_gradient, parameters={"beta": 0.1}),
        "nash_policy_gradient is a policy gradient on fresh completions, so offline pairs cannot be combined with it; "
        "use a pairwise objective such as dpo",
    ),
    "a robust policy gradient": (
        lambda: get("nash-md").configured(robust_radius=0.1),
        "so robust_radius cannot be combined with it",
    ),
    "a policy gradient on stale completions": (
        lambda: get("nash-md").configured(staleness=3),
        "so completions of up to 3 steps ago (staleness) cannot be combined with it",
    ),
    "a policy gradient on chosen pairs": (
        lambda: get("nash-ema").configured(pairing="best-worst"),
        "so pairs that are chosen (pairing, acquire) cannot be combined with it",
    ),
    "a policy gradient on somebody else's completions": (
        lambda: get("nash-md").with_parts(routes=(_turned_around(get("nash-md").routes[0]),)),
        "so first completions that are no plain draws of the policy cannot be combined with it",
    ),
    "a corrected policy gradient": (
        lambda: get("online-dpo").with_parts(
            name="mine",
            objective=nash_policy_gradient,
            parameters={"beta": 0.1},
            routes=(on_policy(weight=1.0, correction=0.2),),
        ),
        "so the online correction cannot be combined with it",
    ),
    "a self-labeled policy gradient": (
        lambda: get("sail-dpp").with_parts(objective=nash_policy_gradient, parameters={"beta": 0.1}),
        "so offline pairs and self-labeled routes cannot be combined with it",
    ),
    # Groups of the wrong size.
    "pairs from one completion": (
        lambda: get("online-dpo").configured(pairing="best"),
        "dpo compares pairs, but pairing 'best' of route 'dpr' does not give pairs; use one that does, such as "
        "best-worst",
    ),
    "pairs from a group": (
        lambda: get("online-dpo").configured(pairing="all"),
        "pairing 'all' of route 'dpr' does not",
    ),
    "robust groups": (
        lambda: get("sppo").configured(robust_radius=0.1),
        "sppo reads one value a completion, not a preference, so robust_radius (route 'dpr') cannot be combined with "
        "it; use a pairwise objective",
    ),
    "sampled labels of groups": (
        lambda: get("raft").configured(labels="sampled"),
        "so sampled labels (route 'dpr') cannot be combined with it",
    ),
    "corrected groups": (
        lambda: get("sppo").with_parts(routes=(on_policy(weight=1.0, correction=0.1),), staleness=0),
        "so the online correction (route 'dpr') cannot be combined with it",
    ),
    "self-labeled groups": (
        lambda: get("sail-dpp").with_parts(objective=sppo, parameters={"beta": 1.0}),
        "so preference='policy' (route 'dpp') cannot be combined with it",
    ),
    "groups that are better by construction": (
        lambda: get("spin").with_parts(objective=sppo, parameters={"beta": 1.0}),
        "so preference='first' (route 'spin') cannot be combined with it",
    ),
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


def test_objectives_over_groups_need_values() -> None:
    method = get("sppo")
    with pytest.raises(ValueError, match="sppo compares groups by value: pass values, one number a completion"):
        route_loss(method, method.routes[0], GroupLogProbs(torch.zeros(1, 2), torch.zeros(1, 2)))


def test_a_method_names_itself_in_its_refusals() -> None:
    with pytest.raises(SpecError, match=r"^online-dpo: "):
        get("online-dpo").configured(weights={"dpr": 0.5})


def test_dpo_with_smoothing_is_still_accepted_where_labels_are_averaged() -> None:
    assert get("sail-dpp").configured(parameters={"label_smoothing": 0.1}).objective is dpo
