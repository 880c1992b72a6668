"""The loss of one route's groups: what a method's words mean as a tensor. Pure; used by training and by the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from setsail.methods.parts import Route
from setsail.methods.spec import Method
from setsail.objectives import (
    GroupLogProbs,
    LogProbs,
    draw_preference,
    implicit_preference,
    online_correction,
    self_labeled,
    self_labeled_sampled,
)


@dataclass(frozen=True, slots=True)
class RouteLoss:
    """Loss of each group of a route, shape ``(groups,)``.

    Attributes:
        surrogate: what is differentiated.
        value: the objective's own value under the label, uncorrected and unscaled: what is logged, and what
            baselines are means of.
    """

    surrogate: Tensor
    value: Tensor


def route_loss(
    method: Method,
    route: Route | None,
    logps: GroupLogProbs,
    p: Tensor | None = None,
    values: Tensor | None = None,
    facts: Mapping[str, Tensor] = MappingProxyType({}),
    *,
    uniform: Tensor | None = None,
    baseline: Tensor | float = 0.0,
    mask: Tensor | None = None,
) -> RouteLoss:
    """Loss of the groups that took ``route`` (None = the offline pairs).

        offline            loss(p)
        policy labels      c loss(q) with gradient through q = sigmoid(u)         (labels averaged)
                           loss(label) - (c/2) loss(label)^2, label ~ q           (labels sampled)
        labeler, data set  c loss(p), or c loss(label) with label ~ p             (labels sampled)
        over groups        c loss(values)
        completions drawn from the policy: + correction sg(value - b) (log pi(y1) + log pi(y2))

    Args:
        method: gives the objective.
        route: where the groups came from.
        logps: log-probs of the groups, shape ``(groups, K)``, nats; a pairwise objective reads K = 2.
        p: probability that the first is preferred, shape ``(groups,)``; not used where the policy labels.
        values: one number a completion, shape ``(groups, K)``, for an objective over groups.
        facts: what else the objective asks for (``method.facts``), by the name of its argument.
        uniform: one draw from [0, 1) a pair, for sampled labels.
        baseline: of the online correction, from :func:`setsail.objectives.leave_one_out`.
        mask: pairs whose completions take part in the correction (those that finished).

    Raises:
        ValueError: sampled labels without ``uniform``, an objective over groups without ``values``.
    """
    if method.reads_values:
        if values is None:
            raise ValueError(f"{method.name} compares groups by value: pass values, one number a completion")
        missing = [name for name in method.facts if name not in facts]
        if missing:
            raise ValueError(f"{method.name} asks for {', '.join(missing)}; give them in facts")
        value = method.objective(logps, values, **method.parameters, **facts)
        return RouteLoss(value if route is None else route.coefficient * value, value)
    return _pair_loss(method, route, logps.pair(), p, uniform, baseline, mask)


def _pair_loss(
    method: Method,
    route: Route | None,
    logps: LogProbs,
    p: Tensor | None,
    uniform: Tensor | None,
    baseline: Tensor | float,
    mask: Tensor | None,
) -> RouteLoss:
    objective = method.bound_objective()
    if route is None:
        value = objective(logps, p)
        return RouteLoss(value, value)
    if route.labels == "sampled":
        if uniform is None:
            raise ValueError(f"route {route.name!r} samples its labels: pass one uniform draw a pair")
        chance = implicit_preference(logps, method.beta) if route.is_self_labeled else p
        assert chance is not None, "a labeled pair without its preference"
        value = objective(logps, draw_preference(chance, uniform))
        scaled = (
            self_labeled_sampled(objective, logps, uniform, route.coefficient, method.beta)
            if route.is_self_labeled
            else route.coefficient * value
        )
    else:
        value = self_labeled(objective, logps, method.beta) if route.is_self_labeled else objective(logps, p)
        scaled = route.coefficient * value
    if route.correction == 0:
        return RouteLoss(scaled, value)
    correction = online_correction(value, logps, route.correction, baseline, mask) - value
    return RouteLoss(scaled + correction, value)
