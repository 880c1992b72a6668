"""Whether the parts of a method fit together; refusals name the method, what was given and what to do."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from setsail.core import SpecError, nearest
from setsail.methods.facts import FACTS
from setsail.methods.parts import Route
from setsail.objectives import dpo

if TYPE_CHECKING:
    from setsail.methods.spec import Method

UPDATES = ("plain", "extragradient")
JUDGES = (None, "self")
FORMS = ("pairs", "lists", "singles")
# A switch is a number to Python, so it comes first.
KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "a word"),
)


def check_coherence(method: Method) -> None:
    """Refuse a method whose parts contradict each other.

    Raises:
        SpecError: a parameter the objective does not take, weights that leave no rows, a route that the objective
            cannot read, ...
    """
    _check_parameters(method)
    _check_form(method)
    _check_mixture(method)
    _check_policies(method)
    _check_update(method)
    _check_addends(method)
    _check_surrogate(method)
    for route in method.routes:
        _check_route(method, route)


def _check_parameters(method: Method) -> None:
    read = ("logps", "p", "values", *method.facts)
    accepted = [name for name in inspect.signature(method.objective).parameters if name not in read]
    for name in method.parameters:
        if name not in accepted:
            raise SpecError(
                f"{method.name}: its objective {method.objective.__name__} takes no {name!r}; it takes "
                f"{', '.join(accepted)}"
            )
    if "beta" in accepted and "beta" not in method.parameters:
        raise SpecError(
            f"{method.name}: its parameters hold no beta, the strength of the KL penalty; add one (0.1 is usual)"
        )
    _check_kinds(method)
    # Not method.beta, which is 1 for an objective that has none, or that has it switched off.
    beta = method.parameters.get("beta", 1.0)
    if beta is None or not beta >= 0 or (beta == 0 and not method.reads_values):
        raise SpecError(
            f"{method.name}: beta must be positive, got {beta}; it scales the KL penalty to the reference "
            "(0.1 is usual, smaller moves farther)"
        )
    smoothing = method.parameters.get("label_smoothing", 0.0)
    if not 0 <= smoothing < 0.5:
        raise SpecError(f"{method.name}: label_smoothing must lie in [0, 0.5), got {smoothing}")
    if not 0 <= method.robust_radius <= 1:
        raise SpecError(f"{method.name}: robust_radius is a label error in [0, 1], got {method.robust_radius}")
    if method.staleness < 0:
        raise SpecError(f"{method.name}: staleness must be 0 or more optimizer steps, got {method.staleness}")


def _check_kinds(method: Method) -> None:
    """Numbers, words and switches where the objective's defaults are such; None is for the objective to judge."""
    taken = inspect.signature(method.objective).parameters
    for name, value in method.parameters.items():
        default = taken[name].default
        kind, word = next(((kind, word) for kind, word in KINDS if isinstance(default, kind)), (object, ""))
        if value is not None and (not isinstance(value, kind) or (word == "a number" and isinstance(value, bool))):
            raise SpecError(
                f"{method.name}: {name} of {method.objective.__name__} must be {word}, such as {default!r}, got "
                f"{value!r}"
            )


def _check_form(method: Method) -> None:
    """Lists and single answers are for objectives over groups, and so are facts, named as training knows them."""
    if method.form not in FORMS:
        raise SpecError(
            f"{method.name}: form must be one of {', '.join(FORMS)}, got {method.form!r}{nearest(method.form, FORMS)}"
        )
    if method.form != "pairs" and not method.reads_values:
        raise SpecError(
            f"{method.name}: {method.objective.__name__} compares pairs, but its data set rows are to be "
            f"{method.form}; use form='pairs'"
        )
    taken = inspect.signature(method.objective).parameters if method.reads_values else ()
    for argument, fact in method.facts.items():
        if argument not in taken or argument in ("logps", "values") or fact not in FACTS:
            raise SpecError(
                f"{method.name}: the fact {argument}={fact!r} is not one that {method.objective.__name__} takes and "
                f"training knows; it knows {', '.join(FACTS)}"
            )
    given = ("logps", "p", "values", *method.parameters, *method.facts)
    signature = inspect.signature(method.objective).parameters.values()
    missing = [each.name for each in signature if each.default is each.empty and each.name not in given]
    if missing:
        raise SpecError(
            f"{method.name}: {method.objective.__name__} cannot do without {', '.join(missing)}; give it as a "
            f"parameter, or name the fact that it is in facts ({', '.join(FACTS)})"
        )


def _check_mixture(method: Method) -> None:
    names = [route.name for route in method.routes]
    if len(set(names)) != len(names):
        raise SpecError(f"{method.name}: two routes share a name among {names}; metrics would mix, rename one")
    total = sum(route.weight for route in method.routes)
    weights = ", ".join(f"{route.name}={route.weight:g}" for route in method.routes)
    if method.offline and method.routes and total >= 1 - 1e-9:
        raise SpecError(
            f"{method.name}: the route weights ({weights}) sum to {total:g}, which leaves no offline pairs; keep the "
            "sum below 1, or use online-dpo to train on labeled completions of the policy alone"
        )
    if not method.offline and abs(total - 1) > 1e-9:
        raise SpecError(
            f"{method.name}: it has no offline part, so its route weights ({weights}) must sum to 1, not {total:g}; "
            "use sail-dpr to mix in pairs of the data set"
        )
    if not method.offline and all(route.is_self_labeled for route in method.active_routes):
        raise SpecError(
            f"{method.name}: a policy that only labels itself cannot start (at the reference every "
            "preference is 1/2 and "
            "the gradient is zero); add offline pairs (sail-ddp, sail-dpp) or a labeler (online-dpo)"
        )


def _check_surrogate(method: Method) -> None:
    """A policy gradient is no loss: nothing can be built on its value, and data set pairs have none."""
    if not method.is_policy_gradient:
        return
    asked = {
        "offline pairs": method.offline_weight > 0,
        "robust_radius": bool(method.robust_radius),
        "the online correction": any(route.correction for route in method.routes),
        "self-labeled routes": any(route.is_self_labeled for route in method.routes),
        f"completions of up to {method.staleness} steps ago (staleness)": bool(method.staleness),
        "first completions that are no plain draws of the policy": any(not _leads(route) for route in method.routes),
        "pairs that are chosen (pairing, acquire)": any(_chooses(route) for route in method.routes),
    }
    refused = [what for what, is_asked in asked.items() if is_asked]
    if refused:
        raise SpecError(
            f"{method.name}: {method.objective.__name__} is a policy gradient on fresh completions, so "
            f"{' and '.join(refused)} cannot be combined with it; use a pairwise objective such as dpo"
        )


def _leads(route: Route) -> bool:
    """Whether the route's first candidate is the policy's own draw."""
    first = route.candidates[0]
    return first.origin == "policy" and not first.sampling


def _chooses(route: Route) -> bool:
    """Whether what is learnt from is other than plain draws: chosen pairs, or a share of the rows."""
    return (route.pairing != "first-two" and not route.rule.as_drawn) or route.acquire < 1


def _check_addends(method: Method) -> None:
    """Every added term has a name of its own and completions to read."""
    names = [addend.name for addend in method.addends]
    if len(set(names)) != len(names):
        raise SpecError(
            f"{method.name}: two added terms share a name among {names}; their numbers would mix, rename one"
        )
    drawn = {source.origin for route in method.active_routes for source in route.candidates}
    for addend in method.addends:
        if addend.coefficient and addend.samples in ("reference", "policy") and addend.samples not in drawn:
            raise SpecError(
                f"{method.name}: addend {addend.name!r} reads the {addend.samples}'s completions among the candidates, "
                f"but no route draws from the {addend.samples}; add such a source, let it draw its own "
                "(samples='fresh-reference'), or set its coefficient to 0"
            )
        if addend.coefficient and addend.samples == "fresh-reference" and method.reference.anchor:
            raise SpecError(
                f"{method.name}: addend {addend.name!r} draws from the reference, but a product of two policies "
                f"(anchor {method.reference.anchor:g}) has no completions of its own; drop the anchor or the addend"
            )


def _check_update(method: Method) -> None:
    for what, given, allowed in (("update", method.update, UPDATES), ("judge", method.judge, JUDGES)):
        if given not in allowed:
            known = " or ".join(repr(name) for name in allowed)
            raise SpecError(f"{method.name}: {what} must be {known}, got {given!r}")
    if method.update != "extragradient":
        return
    if method.staleness:
        raise SpecError(
            f"{method.name}: an extragradient step needs completions of the current weights, but staleness "
            f"{method.staleness} lets them be older; set staleness to 0"
        )
    for who, rule in (("reference", method.reference), ("opponent", method.opponent)):
        if rule is not None and rule.steps is not None and rule.steps % 2:
            raise SpecError(
                f"{method.name}: every first of two extragradient steps is taken back, so its {who} would take over "
                f"weights that are; let it move after an even number of steps, not every {rule.steps}"
            )


def _check_policies(method: Method) -> None:
    if method.generations < 1:
        raise SpecError(f"{method.name}: generations must be at least 1, got {method.generations}")
    if not 0 <= method.soup_share <= 1:
        raise SpecError(f"{method.name}: soup_share must lie in [0, 1], got {method.soup_share}")
    opponent = method.opponent
    if opponent is not None and (opponent.momentum or opponent.anchor):
        raise SpecError(f"{method.name}: momentum and anchor belong to the reference, not to the opponent")
    if opponent is not None and opponent.follows == "reference" and not method.reference.moves:
        raise SpecError(
            f"{method.name}: its opponent is to stay one move behind the reference, but the reference never moves; "
            "let it move, such as every(16)"
        )
    if opponent is not None and opponent.follows == "reference" and opponent.steps != method.reference.steps:
        raise SpecError(
            f"{method.name}: its opponent is to stay one move behind the reference, so both must move every "
            f"{method.reference.steps} steps, not every {opponent.steps}"
        )
    if opponent is not None and opponent.follows == "reference" and method.reference.anchor:
        raise SpecError(
            f"{method.name}: its opponent is to follow the reference, but a product of two policies (anchor "
            f"{method.reference.anchor:g}) has no weights of its own; let the opponent follow the policy, or drop the "
            "anchor"
        )
    if method.reference.anchor and any(addend.distributions for addend in method.addends):
        raise SpecError(
            f"{method.name}: an added term compares next tokens with the reference, but a product of two policies "
            f"(anchor {method.reference.anchor:g}) has no next-token distribution; drop the anchor or the term"
        )
    if method.reference.follows != "policy":
        raise SpecError(f"{method.name}: a reference follows the policy; only an opponent can follow the reference")


def _check_route(method: Method, route: Route) -> None:
    _check_size(method, route)
    asks_opponent = route.preference == "implicit" or any(s.origin == "opponent" for s in route.candidates)
    if asks_opponent and method.opponent is None:
        raise SpecError(
            f"{method.name}: route {route.name!r} needs an opponent to draw from or to compare with; give the method "
            "one, such as opponent=fixed()"
        )
    if method.reference.anchor and any(s.origin in ("reference", "mixture") for s in route.candidates):
        raise SpecError(
            f"{method.name}: route {route.name!r} draws from the reference, but a product of two policies (anchor "
            f"{method.reference.anchor:g}) has no completions of its own; draw from the policy or an opponent"
        )
    if route.correction and method.staleness:
        raise SpecError(
            f"{method.name}: the online correction of route {route.name!r} needs completions of the "
            "current weights, but "
            f"staleness {method.staleness} lets them be older; set staleness to 0 or the correction to 0"
        )
    is_label_likelihood = (
        method.objective is dpo and not method.parameters.get("label_smoothing") and not method.robust_radius
    )
    if route.is_self_labeled and route.labels == "sampled" and not is_label_likelihood:
        raise SpecError(
            f"{method.name}: sampled self-labels need a loss that is the label's negative log-likelihood "
            "(dpo, no label "
            "smoothing, no robust radius); use labels='averaged', which is exact for every objective"
        )


def _check_size(method: Method, route: Route) -> None:
    """The objective, the pairing rule and the label must speak of groups of the same kind."""
    if not method.reads_values:
        if route.rule.size != 2:
            raise SpecError(
                f"{method.name}: {method.objective.__name__} compares pairs, but pairing {route.pairing!r} of route "
                f"{route.name!r} does not give pairs; use one that does, such as best-worst"
            )
        return
    asked = {
        "robust_radius": bool(method.robust_radius),
        "sampled labels": route.labels == "sampled",
        "the online correction": bool(route.correction),
        f"preference={route.preference!r}": route.preference in ("policy", "first"),
    }
    refused = [what for what, is_asked in asked.items() if is_asked]
    if refused:
        raise SpecError(
            f"{method.name}: {method.objective.__name__} reads one value a completion, not a preference, so "
            f"{' and '.join(refused)} (route {route.name!r}) cannot be combined with it; use a pairwise objective"
        )
