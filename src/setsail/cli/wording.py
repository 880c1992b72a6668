"""A method in words: what the list, the description and the start of a run say of its parts. No name is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setsail.methods import Addend, Method, Route, Source
    from setsail.reference import ReferenceRule

LABELED_BY = {
    "dataset": "the data set",
    "policy": "the policy, inside the loss",
    "labeler": "the labeler",
    "first": "the first always wins",
    "implicit": "implicit reward of the last round",
}
SHORT_LABEL = {"dataset": "", "first": "first wins"}
COMPARED = {
    "first-two": "the first two",
    "best-worst": "best and worst",
    "all-pairs": "every pair",
    "best": "the best alone",
    "all": "all together",
    "each": "each by itself",
    "rank-filter:best-random": "one: the best half of the time, else any other",
    "rank-filter:best-worst": "one: the best or the worst",
    "tilted": "one by exp(score), one by exp(-score)",
}
OFFLINE = {
    "pairs": ("offline", "the data set's pair and preference"),
    "lists": ("offline lists", "all scored answers of the row together"),
    "singles": ("offline marks", "each answer by itself, marked good or bad"),
}
"""How data set rows are read, by the method's form: in the list, and in full."""
THE_TWO = "the two"
LEARNT = {
    "hard": "the likelier side, for certain",
    "win-rates": "sigmoid(w1 - w2), w the win rates",
    "preference": "preference",
}
VALUES = {"scores": "score", "win-rates": "win rate", "last": "preference over the last"}
READ_BY_ADDENDS = {
    "fresh-reference": "fresh answers of the reference",
    "reference": "the reference's answers",
    "policy": "the policy's answers",
    "preferred": "the preferred answers",
    "compared": "the answers compared",
}
OWN_FLAG = ("beta", "label_smoothing", "length_normalize")
"""Arguments of objectives that have a flag of their own."""
UPDATES = {"extragradient": "extragradient: each odd step looks ahead, the next one is taken from where it started"}


# Routes.


def answers(route: Route, method: Method) -> str:
    """Who writes the candidates, and how many: ``2 of the policy, 1 of the reference``."""
    if not route.draws:
        return "the data set's two"
    said = []
    for alike, those in groupby(route.candidates, key=lambda source: replace(source, count=1)):
        count = sum(method.generations if source.count is None else source.count for source in those)
        said.append(f"{count} of {_writer(alike)}" if alike.is_drawn else f"the row's {alike.origin}")
    return ", ".join(said)


def _writer(source: Source) -> str:
    name = "the " + str(source.origin)
    if source.origin == "mixture":
        name = f"policy^{1 - source.share:g} reference^{source.share:g}"
    settings = dict(source.sampling)
    if not settings:
        return name
    return name + (" (greedy)" if settings == {"top_k": 1} else f" ({_pairs(settings, ' ')})")


def compared(route: Route, method: Method) -> str:
    """Which candidates are compared, and in how many rows."""
    head, _, threshold = route.pairing.partition(":")
    count = route.number_of_candidates(method.generations) - (route.values == "last")
    said = COMPARED.get(route.pairing) or f"every pair with P >= {threshold}"
    if count == 2 and head in ("first-two", "all-pairs"):
        said = THE_TWO
    return said if route.acquire == 1 else f"{said}, in the {route.acquire:.0%} of rows with the largest |u|"


def learnt(route: Route, method: Method) -> str:
    """What the loss reads of what is compared, and who says it."""
    who = LABELED_BY[route.preference]
    if route.preference in ("policy", "first"):
        return who
    what = VALUES[route.values] if method.reads_values else LEARNT[route.label]
    sampled = ", a label drawn from it" if route.labels == "sampled" else ""
    return f"{what}, by {who}{sampled}"


def route_lines(method: Method) -> list[str]:
    """One line a route: share of the rows, answers, what is compared, what is learnt."""
    offline = method.offline_weight
    lines = [f"{offline:.0%} offline: {OFFLINE[method.form][1]}"] if offline else []
    for route in method.active_routes:
        parts = [answers(route, method)]
        if (chosen := compared(route, method)) != THE_TWO:
            parts.append(f"compared: {chosen}")
        parts.append(f"{'value' if method.reads_values else 'label'}: {learnt(route, method)}")
        lines.append(f"{route.weight:.0%} {route.name}: {'; '.join(parts)}{_scaled(route)}")
    return lines


def _scaled(route: Route) -> str:
    settings = {"coefficient": route.coefficient, "correction": route.correction}
    neutral = {"coefficient": 1.0, "correction": 0.0}
    changed = {name: value for name, value in settings.items() if value != neutral[name]}
    return f"; {_pairs(changed, ' ')}" if changed else ""


def short_routes(method: Method, limit: int) -> str:
    """The mixture on one line: ``70% offline, 30% 2 policy [labeler]``; by the routes' names where that is too long."""
    routes = method.active_routes
    if not routes:
        return OFFLINE[method.form][0]

    def listed(said: list[str]) -> str:
        shares = [route.weight for route in routes]
        if method.offline_weight:
            said, shares = ["offline", *said], [method.offline_weight, *shares]
        parts = zip(shares, said, strict=True)
        return ", ".join(text if share == 1 else f"{share:.0%} {text}" for share, text in parts)

    full = listed([_short_route(route, method) for route in routes])
    return full if len(full) <= limit else listed([route.name for route in routes])


def _short_route(route: Route, method: Method) -> str:
    who = SHORT_LABEL.get(route.preference, route.preference)
    if route.preference == "labeler" and method.judge is not None:
        who = method.judge
    return _short_answers(route, method) + (f" [{who}]" if who else "")


def _short_answers(route: Route, method: Method) -> str:
    if not route.draws:
        return "data set"
    said = []
    for origin, those in groupby(route.candidates, key=_short_origin):
        count = sum(method.generations if source.count is None else source.count for source in those)
        said.append(origin if count == 1 else f"{count} {origin}")
    return " + ".join(said)


def _short_origin(source: Source) -> str:
    name = {"reference": "ref", "mixture": f"mixture {source.share:g}"}.get(source.origin, str(source.origin))
    return f"greedy {name}" if dict(source.sampling) == {"top_k": 1} else name


# Loss, frozen policies, rounds.


def objective(method: Method) -> str:
    """The objective with its parameters: ``dpo(beta=0.1)``."""
    shown = {name: value for name, value in method.parameters.items() if value not in (0, False)}
    return f"{method.objective.__name__}({_pairs(shown, '=')})"


def short_objective(method: Method) -> str:
    """The objective, what is added to it, by name, and how it is stepped on."""
    added = "".join(f" + {addend.name}" for addend in method.addends if addend.coefficient)
    robust = f", robust {method.robust_radius:g}" if method.robust_radius else ""
    update = "" if method.update == "plain" else f", {method.update}"
    return f"{method.objective.__name__}{added}{robust}{update}"


def addend(added: Addend) -> str:
    """``1e-05 x optimism, mean over the reference's answers``."""
    return f"{added.coefficient:g} x {added.name}, mean over {READ_BY_ADDENDS[added.samples]}"


def loss_lines(method: Method) -> list[str]:
    """The objective, and a line for everything that is added to it."""
    lines = [objective(method)]
    if method.robust_radius:
        lines.append(f"made robust to a label error of {method.robust_radius:g}")
    return lines + [f"+ {addend(each)}" for each in method.addends if each.coefficient]


def rule(given: ReferenceRule) -> str:
    """``every 16 steps it becomes the policy``."""
    if given.steps is None:
        return "the starting policy, fixed"
    if given.follows == "reference":
        return "what the reference was before its last move"
    when = "every step" if given.steps == 1 else f"every {given.steps} steps"
    said = f"{when} it " + ("becomes the policy" if given.mixup == 1 else f"takes over {given.mixup:g} of the policy")
    if given.momentum:
        said += f", which is first pushed on by {given.momentum:g} of its way since the last time"
    if given.anchor:
        said += f"; held to the start by a share of {given.anchor:.3g} of the starting policy in its log-probs"
    return said


def reference(method: Method) -> str:
    """The reference rule, and a second model in it."""
    if method.soup_share and method.reference.steps is None:
        share = method.soup_share
        return f"the average of the starting policy ({1 - share:g}) and a second model ({share:g}), fixed"
    return rule(method.reference)


def short_rule(method: Method) -> str:
    """Reference and opponent in a few characters: ``every 16``, ``fixed; average 0.001``."""
    given = method.reference
    said = "fixed" if given.steps is None else f"every {given.steps}"
    said += "".join(
        f", {name} {value:.2g}"
        for name, value in (("momentum", given.momentum), ("anchor", given.anchor), ("soup", method.soup_share))
        if value
    )
    other = method.opponent
    if other is None:
        return said
    if other.follows == "reference":
        return f"{said}; one behind"
    return f"{said}; average {other.mixup:g}" if other.mixup != 1 else f"{said}; opponent {other.steps or 'fixed'}"


def rounds(method: Method) -> str | None:
    """How far ahead answers are drawn; None where they are fresh."""
    if not method.staleness or not method.draws:
        return None
    return f"answers are drawn {method.staleness + 1} steps at a time, by the policy of that moment"


# What a user gives.


def judge(method: Method) -> str | None:
    """Who labels, and how to name somebody; None where nobody is asked."""
    if not method.needs_labeler:
        return None
    if method.judge == "self":
        return "the policy itself, unless --labeler names another"
    return "--labeler: a reward model, a function (file.py:name), or self (the policy)"


def data(method: Method) -> str:
    """What a row of the data set must hold."""
    from setsail.training.setup import needed

    return {
        "pairs": "pairs: prompt, chosen, rejected",
        "lists": "lists: prompt, and two or more scored answers (responses); of pairs, the two",
        "singles": "marked answers: prompt, completion, label; of pairs and lists, each answer by itself",
        "demonstrations": "good answers: prompt and chosen (or completion)",
        "prompts": "prompts; answers beside them are not read",
    }[needed(method)]


def settings(method: Method) -> list[str]:
    """The flags that change the method, at its defaults."""
    flags = [f"--{name} {_number(value)}" for name, value in method.parameters.items() if name in OWN_FLAG]
    others = {name: value for name, value in method.parameters.items() if name not in OWN_FLAG}
    if others:
        flags.append(f"--objective_parameters {_pairs(others, '=', ',')}")
    for flag, attribute, neutral in (
        ("route_weights", "weight", None),
        ("route_coefficients", "coefficient", 1.0),
        ("route_corrections", "correction", 0.0),
    ):
        values = {route.name: getattr(route, attribute) for route in method.routes}
        changed = {name: value for name, value in values.items() if value != neutral}
        if changed and (neutral is not None or len(values) > 1 or method.offline):
            flags.append(f"--{flag} {_pairs(changed, '=', ',')}")
    if method.addends:
        coefficients = {each.name: each.coefficient for each in method.addends}
        flags.append(f"--addend_coefficients {_pairs(coefficients, '=', ',')}")
    if method.robust_radius:
        flags.append(f"--robust_radius {method.robust_radius:g}")
    if any(source.count is None for route in method.active_routes for source in route.candidates):
        flags.append(f"--num_generations {method.generations}")
    if method.reference.steps is not None:
        flags.append(f"--ref_model_sync_steps {method.reference.steps}")
    if method.staleness:
        flags.append(f"--staleness_limit {method.staleness}")
    return flags


def command(method: Method) -> str:
    """How to run it."""
    asked = " --labeler LABELER" if method.needs_labeler and method.judge is None else ""
    second = " --soup_model SECOND" if method.soup_share else ""
    return f"setsail train --method {method.name} --model MODEL --dataset DATASET{asked}{second}"


def _pairs(values: dict[str, Any], between: str, joined: str = ", ") -> str:
    return joined.join(f"{name}{between}{_number(value)}" for name, value in values.items())


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if value is None or isinstance(value, bool) else f"{value:g}"
