"""A method, written down as data and checked when it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor

from setsail.core import SpecError, nearest
from setsail.methods.parts import Addend, Route
from setsail.objectives import PairwiseObjective, dpo, robust
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
        objective: a pairwise objective, unbound.
        parameters: keyword arguments of the objective; ``beta`` is always among them.
        routes: the mixture; empty = offline training.
        offline: whether rows that take no route are trained as offline pairs. False: the weights sum to 1.
        robust_radius: label error the objective is made robust to.
        addends: terms added to the loss.
        reference: when the reference moves.
        staleness: optimizer steps that may lie between drawing a pair and learning from it; k - 1 makes rounds
            of k steps whose pairs all come from the weights at the round's start.
        deviations: where this differs from the paper or from its published code.
        presets: named settings, as arguments of :meth:`configured`.
        modified: what differs from the catalogue.
    """

    name: str
    summary: str
    equation: str
    paper: str
    objective: Callable[..., Tensor]
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"beta": 0.1})
    routes: tuple[Route, ...] = ()
    offline: bool = True
    robust_radius: float = 0.0
    addends: tuple[Addend, ...] = ()
    reference: ReferenceRule = field(default_factory=ReferenceRule)
    staleness: int = 0
    deviations: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modified: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen(self.parameters))
        object.__setattr__(self, "presets", _frozen({name: _frozen(what) for name, what in self.presets.items()}))
        self._check_parameters()
        self._check_mixture()
        for route in self.routes:
            self._check_route(route)

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
    def draws_from_policy(self) -> bool:
        """Whether completions are generated during training."""
        return any(route.responses == "policy" for route in self.active_routes)

    @property
    def needs_labeler(self) -> bool:
        """Whether a reward model, judge or program must label pairs."""
        return any(route.preference == "labeler" for route in self.active_routes)

    @property
    def needs_dataset_pairs(self) -> bool:
        """Whether the data set must hold ``chosen`` and ``rejected``, not only prompts."""
        return self.offline or any(route.responses == "dataset" for route in self.active_routes)

    @property
    def beta(self) -> float:
        """Temperature of the implicit reward."""
        return float(self.parameters["beta"])

    def bound_objective(self) -> PairwiseObjective:
        """The objective with its parameters bound and made robust: ``objective(logps, p) -> loss of each pair``."""
        return robust(partial(self.objective, **self.parameters), self.robust_radius)

    # Derived methods.

    def but(self, name: str, **changes: Any) -> Method:
        """Another method that differs from this one in ``changes``; how the catalogue is written."""
        return replace(self, name=name, **changes)

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
    ) -> Method:
        """This method with some settings changed; ``None`` leaves a setting as it is.

        Args:
            parameters: keyword arguments of the objective (``beta``, ``label_smoothing``, ...).
            weights, coefficients, corrections: by route name.
            labels, pairing: for every route that has a choice (``pairing``: those that draw from the policy).
            addends: coefficients by addend name.
            robust_radius, reference, staleness: as the attributes of the same name.

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
            if pairing is not None and route.responses == "policy":
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
            staleness=self.staleness if staleness is None else staleness,
        )
        return replace(changed, modified=(*self.modified, *changed._differences(self)))

    def _differences(self, other: Method) -> tuple[str, ...]:
        names = ("parameters", "routes", "addends", "robust_radius", "reference", "staleness")
        return tuple(
            name for name in names if getattr(self, name) != getattr(other, name) and name not in self.modified
        )

    # Coherence.

    def _known(self, what: str, given: Mapping[str, Any], known: list[str], kind: str) -> None:
        for name in given:
            if name not in known:
                have = ", ".join(known) or "none"
                raise SpecError(
                    f"{self.name} has no {kind} {name!r} to give a {what} (its {kind}s: {have}){nearest(name, known)}"
                )

    def _check_parameters(self) -> None:
        accepted = [name for name in inspect.signature(self.objective).parameters if name not in ("logps", "p")]
        for name in self.parameters:
            if name not in accepted:
                raise SpecError(
                    f"{self.name}: its objective {self.objective.__name__} takes no {name!r}; it takes "
                    f"{', '.join(accepted)}"
                )
        if "beta" not in self.parameters:
            raise SpecError(
                f"{self.name}: its parameters hold no beta, the strength of the KL penalty; add one (0.1 is usual)"
            )
        if not self.beta > 0:
            raise SpecError(
                f"{self.name}: beta must be positive, got {self.beta}; it scales the KL penalty to the reference "
                "(0.1 is usual, smaller moves farther)"
            )
        smoothing = self.parameters.get("label_smoothing", 0.0)
        if not 0 <= smoothing < 0.5:
            raise SpecError(f"{self.name}: label_smoothing must lie in [0, 0.5), got {smoothing}")
        if not 0 <= self.robust_radius <= 1:
            raise SpecError(f"{self.name}: robust_radius is a label error in [0, 1], got {self.robust_radius}")
        if self.staleness < 0:
            raise SpecError(f"{self.name}: staleness must be 0 or more optimizer steps, got {self.staleness}")

    def _check_mixture(self) -> None:
        names = [route.name for route in self.routes]
        if len(set(names)) != len(names):
            raise SpecError(f"{self.name}: two routes share a name among {names}; metrics would mix, rename one")
        total = sum(route.weight for route in self.routes)
        weights = ", ".join(f"{route.name}={route.weight:g}" for route in self.routes)
        if self.offline and self.routes and total >= 1 - 1e-9:
            raise SpecError(
                f"{self.name}: the route weights ({weights}) sum to {total:g}, which leaves no offline pairs; keep the "
                "sum below 1, or use online-dpo to train on labeled completions of the policy alone"
            )
        if not self.offline and abs(total - 1) > 1e-9:
            raise SpecError(
                f"{self.name}: it has no offline part, so its route weights ({weights}) must sum to 1, not {total:g}; "
                "use sail-dpr to mix in pairs of the data set"
            )
        if not self.offline and all(route.is_self_labeled for route in self.active_routes):
            raise SpecError(
                f"{self.name}: a policy that only labels itself cannot start (at the reference every "
                "preference is 1/2 and "
                "the gradient is zero); add offline pairs (sail-ddp, sail-dpp) or a labeler (online-dpo)"
            )

    def _check_route(self, route: Route) -> None:
        if route.correction and self.staleness:
            raise SpecError(
                f"{self.name}: the online correction of route {route.name!r} needs completions of the "
                "current weights, but "
                f"staleness {self.staleness} lets them be older; set staleness to 0 or the correction to 0"
            )
        is_label_likelihood = (
            self.objective is dpo and not self.parameters.get("label_smoothing") and not self.robust_radius
        )
        if route.is_self_labeled and route.labels == "sampled" and not is_label_likelihood:
            raise SpecError(
                f"{self.name}: sampled self-labels need a loss that is the label's negative log-likelihood "
                "(dpo, no label "
                "smoothing, no robust radius); use labels='averaged', which is exact for every objective"
            )
