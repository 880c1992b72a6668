"""The parts of a method's page that are written from the method itself: nothing here asks for a method's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from meanings import ADDENDS, BETA, OF_AN_OBJECTIVE, PARAMETERS, PLAIN

from setsail.cli.wording import READ_BY_ADDENDS
from setsail.core import SpecError
from setsail.methods import Addend, Method, Route, Source
from setsail.methods.facts import FACTS

SYMBOLS = {"ddp": ("r", "rho", ""), "dpp": ("p", "pi", "pi"), "dpr": ("g", "", "gamma")}
"""Weight, coefficient and correction of SAIL's routes in the paper, where they stand beside offline pairs."""
PREFERENCES = {"dataset": "data set", "first": "the first is better", "implicit": "implicit reward of the last round"}
COMPARED = {
    "first-two": "the first two",
    "best-worst": "best and worst",
    "all-pairs": "all pairs",
    "best": "the best alone",
    "all": "all together",
    "tilted": "one drawn by exp(score), one by exp(-score)",
    "each": "each by itself",
    "rank-filter:best-random": "one alone: half the time the best, else a random other",
    "rank-filter:best-worst": "one alone: half the time the best, else the worst",
}
OFFLINE = {
    "pairs": ("data set", "the two"),
    "lists": ("scores", "all together"),
    "singles": ("good or bad", "each by itself"),
}
"""Preference and comparison of the data set's own answers, by the form in which a method reads them."""
ANSWERS = {"pairs": 2, "lists": None, "singles": 1}
"""Answers of an offline group; None: as many as the row has."""
NUMBERS = {"mismatched": 2, "midpoint": 2}
"""Answers scored without gradient for a number of the batch, for each that is trained on: policy and reference."""
ONE_GROUP = frozenset(
    {"first-two", "best-worst", "best", "all", "tilted", "rank-filter:best-random", "rank-filter:best-worst"}
)
LABELS = {"hard": "the likelier side, for certain", "win-rates": "sigmoid(w1 - w2) of the win rates"}
VALUES = {"win-rates": "win rates", "last": "P against the last"}


def number(value: Any) -> str:
    return str(value) if isinstance(value, bool | str) else f"{value:g}"


def spelled(value: Any) -> str:
    """As a command line has it: ``false``, not Python's ``False``, which would be read as a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"


def without_empty_columns(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """The table without columns that no row fills."""
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    return table(tuple(header[i] for i in kept), [tuple(row[i] for i in kept) for row in rows])


# The equation, and which policies there are.


def equation(method: Method) -> str:
    """The method's loss, its objective and added terms, its frozen policies, its rounds and its source."""
    added = "".join(f" + `{each.name}` over {READ_BY_ADDENDS[each.samples]}" for each in method.addends)
    facts = [f"Objective `{method.objective.__name__}`{added}", f"reference {reference(method)}"]
    if method.opponent is not None:
        facts.append(f"opponent {method.opponent}")
    if method.update != "plain":
        facts.append(f"{method.update} updates")
    if method.staleness:
        facts.append(f"staleness up to {method.staleness}")
    needed = "".join(f"\n`{argument}`: {FACTS[fact]}.\n" for argument, fact in method.facts.items())
    return f"```text\n{method.equation}\n```\n\n{'; '.join(facts)}. Source: {method.paper}.\n{needed}"


def reference(method: Method) -> str:
    """The reference rule in words."""
    rule = str(method.reference)
    return f"{rule}, {method.soup_share:g} of it a second model" if method.soup_share else rule


# Routes.


def routes(method: Method) -> str:
    """Who answers, who prefers, which answers are compared and what is learnt of each, route by route."""
    rows = []
    if method.offline:
        rows = [("offline", f"{method.offline_weight:g}", "data set", *OFFLINE[method.form], "")]
    rows += [
        (
            each.name,
            f"{each.weight:g}",
            answers(each, method),
            PREFERENCES.get(each.preference, each.preference),
            compared(each, method),
            label(each, method),
        )
        for each in method.routes
    ]
    return without_empty_columns(("route", "share of rows", "answers", "preference", "compared", "label"), rows)


def answers(route: Route, method: Method) -> str:
    """The candidates by source: how many, whose, and how they are drawn."""
    if not route.draws:
        return "data set"
    said = []
    for alike, those in groupby(route.candidates, key=lambda source: replace(source, count=1)):
        count = sum(_count(source, method) for source in those)
        said.append(f"{count} of {_law(alike)}" if alike.is_drawn else f"the row's {alike.origin}")
    return ", ".join(said)


def _count(source: Source, method: Method) -> int:
    return method.generations if source.count is None else source.count


def _law(source: Source) -> str:
    name = str(source.origin)
    if source.origin == "mixture":
        name = f"policy^{1 - source.share:g} reference^{source.share:g}"
    elif source.origin != "policy":
        name = f"the {name}"
    else:
        name = "the policy"
    if not source.sampling:
        return name
    settings = dict(source.sampling)
    reshaped = (
        "greedy" if settings == {"top_k": 1} else ", ".join(f"{key} {value:g}" for key, value in settings.items())
    )
    return f"{name} ({reshaped})"


def compared(route: Route, method: Method) -> str:
    """Which of the candidates are compared, and of how many rows."""
    _, _, threshold = route.pairing.partition(":")
    count = route.number_of_candidates(method.generations) - (route.values == "last")
    said = COMPARED.get(route.pairing, f"every pair with P >= {threshold}")
    if route.pairing == "first-two" and count == 2:
        said = "the two"
    return said if route.acquire == 1 else f"{said}, in {route.acquire:g} of the rows: those with the largest abs(u)"


def label(route: Route, method: Method) -> str:
    """What is learnt of the compared, where it is not simply the preference P (or the score)."""
    if method.reads_values:
        return VALUES.get(route.values, "")
    return LABELS.get(route.label, "")


# Cost.


def cost(method: Method) -> str:
    """Frozen policies that are held, and answers drawn, judged, scored and trained on for a row, route by route."""
    # Added terms that read fresh answers of the reference draw one for every row, whatever its route.
    fresh = sum(addend.samples == "fresh-reference" for addend in method.addends)
    rows = [_cost_offline(method, fresh)] if method.offline else []
    rows += [_cost_of(route, method, fresh) for route in method.routes]
    return f"{held(method)} Answers a row:\n\n" + table(
        ("route", "drawn", "judged", "scored frozen", "trained on"), rows
    )


def held(method: Method) -> str:
    """What is kept in memory beside the policy and its optimizer."""
    frozen = ["the reference"]
    if method.reference.anchor:
        frozen.append("the starting policy")
    if method.opponent is not None:
        frozen.append("the opponent")
    kept = ["the weights at the last move"] if method.reference.momentum else []
    kept += ["weights and optimizer before each look-ahead"] if method.update == "extragradient" else []
    also = f" Also kept: {', '.join(kept)}." if kept else ""
    return f"Frozen policies: {', '.join(frozen)}.{also}"


def _cost_offline(method: Method, fresh: int) -> tuple[str, ...]:
    count = ANSWERS[method.form]
    if count is None:
        return "offline", f"{fresh}", "0", "all", "all"
    more = sum(NUMBERS.get(fact, 0) for fact in method.facts.values())
    return "offline", f"{fresh}", "0", f"{count + fresh + more}", f"{count + fresh}"


def _cost_of(route: Route, method: Method, fresh: int) -> tuple[str, ...]:
    count = route.number_of_candidates(method.generations)
    drawn = fresh + sum(_count(source, method) for source in route.candidates if source.is_drawn)
    judged = route.acquire * count if route.preference == "labeler" else 0
    trained = fresh + route.acquire * _trained(route, method, count)
    scored = trained * (2 if method.reference.anchor else 1)
    scored += (2 if route.acquire < 1 else 0) + (2 * count if route.preference == "implicit" else 0)
    most = "up to " if route.rule.reads_values else ""
    return route.name, f"{drawn}", f"{judged:g}", f"{most}{scored:g}", f"{most}{trained:g}"


def _trained(route: Route, method: Method, count: int) -> int:
    """The most distinct answers of a row that get a gradient: those compared, and those that added terms read."""
    everyone = count - (route.values == "last")
    one_group = everyone if route.rule.size is None else min(route.rule.size, everyone)
    compared_at_most = one_group if route.pairing in ONE_GROUP else everyone
    read = sum(source.origin in (addend.samples for addend in method.addends) for source in route.candidates)
    return min(everyone, compared_at_most + read)


# Settings.


def defaults(method: Method) -> str:
    """Every number of the method that can be set, with the flag that changes it."""
    published: Mapping[str, Any] = method.presets.get("published", {})
    rows: list[tuple[str, str, str, str, str]] = []

    def add(name: str, value: Any, flag: str, meaning: str, preset: Any = None) -> None:
        rows.append((name, number(value), "" if preset is None else number(preset), f"`{flag}`", meaning))

    for name, value in method.parameters.items():
        flag = f"--{name} {value}" if name in PLAIN else f"--objective_parameters {name}={spelled(value)}"
        add(name, value, flag, meaning_of(name, method))
    for route in method.routes:
        _add_route(add, method, route, published)
    for addend in method.addends:
        flag = f"--addend_coefficients {addend.name}={addend.coefficient:g}"
        preset = published.get("addends", {}).get(addend.name)
        add(f"coefficient of {addend.name}", addend.coefficient, flag, meaning_of_addend(addend), preset)
    if method.robust_radius:
        add("robust_radius", method.robust_radius, f"--robust_radius {method.robust_radius:g}", "rho, the label error")
    _add_draws_and_rounds(add, method)
    return without_empty_columns(("parameter", "default", "published preset", "flag", "meaning"), rows)


def meaning_of(parameter: str, method: Method) -> str:
    """What a parameter of the objective means in this method."""
    if parameter != "beta":
        return OF_AN_OBJECTIVE.get((method.objective.__name__, parameter)) or PARAMETERS[parameter]
    meaning = BETA[method.objective.__name__]
    if method.reference.anchor:
        meaning += f"; eta of the paper, whose tau is {method.reference.anchor:.3g} beta"
    return meaning


def meaning_of_addend(addend: Addend) -> str:
    """What the coefficient of an added term multiplies, and in which unit."""
    return ADDENDS[addend.name].format(unit="a token" if addend.per_token else "an answer")


def _add_route(add: Callable[..., None], method: Method, route: Route, published: Mapping[str, Any]) -> None:
    in_paper = SYMBOLS.get(route.name, ("", "", "")) if method.offline else ("", "", "")
    weight, coefficient, correction = (f"{symbol}, " if symbol else "" for symbol in in_paper)
    name = route.name

    def preset(kind: str) -> Any:
        return published.get(kind, {}).get(name)

    flag = f"--route_weights {name}={route.weight:g}"
    add(f"weight of {name}", route.weight, flag, f"{weight}share of rows that take the route", preset("weights"))
    flag = f"--route_coefficients {name}={route.coefficient:g}"
    meaning = f"{coefficient}multiplies the route's loss"
    add(f"coefficient of {name}", route.coefficient, flag, meaning, preset("coefficients"))
    if route.acquire == 1 and is_allowed(method, corrections={name: 0.1}):
        flag = f"--route_corrections {name}={route.correction:g}"
        meaning = f"{correction}multiplies the response-score term"
        add(f"correction of {name}", route.correction, flag, meaning, preset("corrections"))


def _add_draws_and_rounds(add: Callable[..., None], method: Method) -> None:
    if any(_compares_more_than_two(route) for route in method.routes):
        flag = f"--num_generations {method.generations}"
        add("num_generations", method.generations, flag, "answers drawn where the route leaves their number open")
    rule = method.reference
    if rule.steps is not None and is_allowed(method, reference=replace(rule, steps=rule.steps + 1)):
        flag = f"--ref_model_sync_steps {rule.steps}"
        add("ref_model_sync_steps", rule.steps, flag, "steps between moves of the reference")
    if rule.steps is not None:
        flag = f"--ref_model_mixup_alpha {rule.mixup:g}"
        meaning = "share of the policy's weights that the reference takes over when it moves"
        add("ref_model_mixup_alpha", rule.mixup, flag, meaning)
    if method.staleness:
        flag = f"--staleness_limit {method.staleness}"
        add("staleness_limit", method.staleness, flag, "steps between drawing an answer and learning from it, at most")


def _compares_more_than_two(route: Route) -> bool:
    """Whether drawing more answers changes what is learnt, without another pairing."""
    is_open = any(source.count is None for source in route.candidates)
    return is_open and (route.pairing != "first-two" or route.label == "win-rates")


def is_allowed(method: Method, **changes: Any) -> bool:
    """Whether the method can be configured so."""
    try:
        method.configured(**changes)
    except SpecError:
        return False
    return True


def deviations(method: Method) -> str:
    """What differs from the paper or its code, as the method's card says it."""
    return "".join(f"* {deviation}\n" for deviation in method.deviations) or "None.\n"
