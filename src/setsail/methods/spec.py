"""A method, written down as data and checked when it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from setsail.core import SpecError, nearest
from setsail.methods.coherence import check_coherence
from setsail.methods.facts import Fact
from setsail.methods.parts import Addend, Route
from setsail.objectives import SURROGATES, PairwiseObjective, robust
from setsail.reference import ReferenceRule


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


@dataclass(frozen=True, kw_only=True)
class Method:
    """method = mixture of routes x objective (+ addends) x reference rule.

    A row of the data set takes a route with the route's weight as probability; rows that take none are offline
    pairs: the data set's completions with the data set's preference. The class defaults are the vetted setting;
    :meth:`configured` returns a changed copy that remembers what was changed.

    Attributes:
        name, summary, equation, paper: what ``setsail methods`` prints.
        objective: an objective, unbound; one that takes ``p`` compares pairs, one that takes ``values`` groups.
        parameters: keyword arguments of the objective.
        routes: the mixture; empty = offline training.
        offline: whether rows that take no route are trained as offline pairs. False: the weights sum to 1.
        form: how a data set row becomes an offline group: its pair, all of its scored answers as one list, or each
            answer alone, marked desirable or undesirable.
        facts: what the objective needs beside log-probs and values, by the name of its argument (each one of
            :data:`setsail.methods.facts.FACTS`).
        robust_radius: label error the objective is made robust to.
        addends: terms added to the loss.
        reference: when the reference moves.
        opponent: another frozen policy beside the reference, where a route draws from it or compares with it, and when
            it moves.
        soup_share: share of a second fine-tuned model, which the user gives, in the reference's weights.
        generations: completions drawn for a source whose count is left open.
        update: a ``plain`` optimizer step; or ``extragradient``: each odd step only looks ahead, the next one is taken
            from where it started with what was seen there.
        judge: who labels where the user names nobody; ``self`` = the policy under training, asked for scores.
        staleness: optimizer steps that may lie between drawing a pair and learning from it; k - 1 makes rounds
            of k steps whose pairs all come from the weights at the round's start.
        deviations: where this differs from the paper or from its published code.
        presets: named settings, as arguments of :meth:`configured`.
        modified: what differs from the catalogue.
    """

    objective: Callable[..., Tensor]
    name: str = "unnamed"
    summary: str = ""
    equation: str = ""
    paper: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"beta": 0.1})
    routes: tuple[Route, ...] = ()
    offline: bool = True
    form: Literal["pairs", "lists", "singles"] = "pairs"
    facts: Mapping[str, Fact] = field(default_factory=dict)
    robust_radius: float = 0.0
    addends: tuple[Addend, ...] = ()
    reference: ReferenceRule = field(default_factory=ReferenceRule)
    opponent: ReferenceRule | None = None
    soup_share: float = 0.0
    generations: int = 2
    update: Literal["plain", "extragradient"] = "plain"
    judge: str | None = None
    staleness: int = 0
    deviations: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modified: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen(self.parameters))
        object.__setattr__(self, "facts", _frozen(self.facts))
        object.__setattr__(self, "presets", _frozen({name: _frozen(what) for name, what in self.presets.items()}))
        check_coherence(self)

    # What the method needs, so that nobody has to ask for its name.

    @property
    def offline_weight(self) -> float:
        """Probability that a row is trained as an offline pair."""
        return max(0.0, 1.0 - sum(route.weight for route in self.routes)) if self.offline else 0.0

    @property
    def active_routes(self) -> tuple[Route, ...]:
        """The routes that rows can take: weight above 0."""
        return tuple(route for route in self.routes if route.weight > 0)

    @property
    def draws(self) -> bool:
        """Whether completions are generated during training."""
        return any(route.draws for route in self.active_routes)

    @property
    def reads_values(self) -> bool:
        """Whether the objective compares groups by their values; otherwise it compares pairs by their preference."""
        return "values" in inspect.signature(self.objective).parameters

    @property
    def is_policy_gradient(self) -> bool:
        """Whether the objective is the surrogate of a policy gradient: its value means nothing."""
        return self.objective in SURROGATES

    @property
    def needs_labeler(self) -> bool:
        """Whether a reward model, judge or program must label pairs."""
        return any(route.preference == "labeler" for route in self.active_routes)

    @property
    def needs_dataset_pairs(self) -> bool:
        """Whether the data set must hold ``chosen`` and ``rejected``, not only prompts."""
        return self.offline or any(route.needs_dataset_answers for route in self.active_routes)

    @property
    def beta(self) -> float:
        """Temperature of the implicit reward; 1 for an objective that has none."""
        return float(self.parameters.get("beta") or 1.0)

    def bound_objective(self) -> PairwiseObjective:
        """The objective with its parameters bound and made robust: ``objective(logps, p) -> loss of each pair``."""
        return robust(partial(self.objective, **self.parameters), self.robust_radius)

    # Derived methods.

    def with_parts(self, **changes: Any) -> Method:
        """Another method that differs from this one in ``changes``; how the catalogue is written."""
        return replace(self, **changes)

    def preset(self, name: str) -> Method:
        """This method with one of its named presets, for example the published weights."""
        if name not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise SpecError(f"{self.name} has no preset {name!r} (it has: {known}){nearest(name, self.presets)}")
        return replace(self.configured(**self.presets[name]), modified=(*self.modified, f"preset {name}"))

    def configured(
        self,
        *,
        parameters: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        coefficients: Mapping[str, float] | None = None,
        corrections: Mapping[str, float] | None = None,
        labels: str | None = None,
        pairing: str | None = None,
        addends: Mapping[str, float] | None = None,
        robust_radius: float | None = None,
        reference: ReferenceRule | None = None,
        staleness: int | None = None,
        generations: int | None = None,
    ) -> Method:
        """This method with some settings changed; ``None`` leaves a setting as it is.

        Args:
            parameters: keyword arguments of the objective (``beta``, ``label_smoothing``, ...).
            weights, coefficients, corrections: by route name.
            labels, pairing: for every route that has a choice (``pairing``: those that draw from the policy).
            addends: coefficients by addend name.
            robust_radius, reference, staleness, generations: as the attributes of the same name. An opponent that is
                one move behind the reference moves when the new one does.

        Raises:
            SpecError: a name that the method does not have, or a combination that makes no sense.
        """
        per_route = {"weight": weights or {}, "coefficient": coefficients or {}, "correction": corrections or {}}
        for what, given in per_route.items():
            self._known(what, given, [route.name for route in self.routes], "route")
        self._known("coefficient", addends or {}, [addend.name for addend in self.addends], "addend")
        routes = []
        for route in self.routes:
            changes: dict[str, Any] = {
                what: given[route.name] for what, given in per_route.items() if route.name in given
            }
            if labels is not None:
                changes["labels"] = labels
            if pairing is not None and route.draws:
                changes["pairing"] = pairing
            routes.append(replace(route, **changes))
        changed = replace(
            self,
            parameters={**self.parameters, **(parameters or {})},
            routes=tuple(routes),
            addends=tuple(
                replace(addend, coefficient=(addends or {}).get(addend.name, addend.coefficient))
                for addend in self.addends
            ),
            robust_radius=self.robust_radius if robust_radius is None else robust_radius,
            reference=self.reference if reference is None else reference,
            opponent=self._opponent_beside(reference),
            staleness=self.staleness if staleness is None else staleness,
            generations=self.generations if generations is None else generations,
        )
        return replace(changed, modified=(*self.modified, *changed._differences(self)))

    def _opponent_beside(self, reference: ReferenceRule | None) -> ReferenceRule | None:
        """The opponent beside another reference: one that is a move behind keeps step with it."""
        if reference is None or self.opponent is None or self.opponent.follows != "reference":
            return self.opponent
        return replace(self.opponent, steps=reference.steps)

    def _differences(self, other: Method) -> tuple[str, ...]:
        names = ("parameters", "routes", "addends", "robust_radius", "reference", "staleness", "generations")
        return tuple(
            name for name in names if getattr(self, name) != getattr(other, name) and name not in self.modified
        )

    def _known(self, what: str, given: Mapping[str, Any], known: list[str], kind: str) -> None:
        for name in given:
            if name not in known:
                have = ", ".join(known) or "none"
                raise SpecError(
                    f"{self.name} has no {kind} {name!r} to give a {what} (its {kind}s: {have}){nearest(name, known)}"
                )
