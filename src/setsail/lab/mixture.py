"""A whole method on an enumerable policy: its stated objective, and the expected gradient of what training computes.

The two are written independently (the objective as sums over the distributions, the gradient as the expectation of
:func:`setsail.methods.route_loss` over completions and labels) so that one proves the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import SpecError
from setsail.lab.exact import risk
from setsail.lab.gradients import gradient
from setsail.lab.pairs import WeightedPairs, policy_pairs
from setsail.methods import Method, Route, route_loss
from setsail.objectives import LogProbs, implicit_preference
from setsail.policies.tabular import EnumerablePolicy


@dataclass(frozen=True, slots=True)
class TabularWorld:
    """What a method trains on, apart from the policy.

    Attributes:
        reference: the reference policy.
        data: the data set's pairs and preferences.
        preference: the labeler, ``P[x, i, j]``, shape ``(prompts, responses, responses)``.
    """

    reference: EnumerablePolicy
    data: WeightedPairs
    preference: Tensor


def mixture_gradient(method: Method, policy: EnumerablePolicy, world: TabularWorld, baseline: float = 0.0) -> Tensor:
    """The expected gradient of one training step: routes, prompts, completions and labels enumerated.

    Args:
        baseline: a constant in place of the leave-one-out mean; the expectation does not depend on it.

    Returns:
        Flat, shape ``(parameters,)``; training descends along it.
    """
    logps = world.data.log_probs(policy, world.reference)
    offline = route_loss(method, None, logps, world.data.p).surrogate
    value = method.offline_weight * (world.data.weight.detach() * offline).sum()
    for route in method.active_routes:
        value = value + route.weight * _expected_surrogate(method, route, policy, world, baseline)
    for addend in method.addends:
        # The completions are the reference's: enumerated with the reference's probabilities.
        table = world.reference.log_probs().detach()
        each = addend.function(policy.log_probs().flatten(), table.flatten())
        value = value + addend.coefficient * (table.exp().flatten() * each).sum() / table.shape[0]
    return gradient(value, policy)


def _expected_surrogate(
    method: Method, route: Route, policy: EnumerablePolicy, world: TabularWorld, baseline: float
) -> Tensor:
    pairs = _route_pairs(route, policy.frozen(), world)
    logps = pairs.log_probs(policy, world.reference)
    own = implicit_preference(logps, method.beta).detach()
    label = own if route.is_self_labeled or pairs.p is None else pairs.p

    def surrogate(uniform: Tensor) -> Tensor:
        return route_loss(method, route, logps, pairs.p, uniform=uniform, baseline=baseline).surrogate

    # A uniform of 0 draws "first preferred" and a uniform of 1 "second preferred", whatever the probability.
    value = surrogate(torch.zeros_like(label))
    if route.labels == "sampled":
        value = label * value + (1 - label) * surrogate(torch.ones_like(label))
    return (pairs.weight.detach() * value).sum()


def _route_pairs(route: Route, sampler: EnumerablePolicy, world: TabularWorld) -> WeightedPairs:
    if route.responses == "dataset":
        return world.data
    if route.pairing != "first-two":
        raise SpecError(
            f"route {route.name!r}: the exact expectation is over independent pairs, but pairing {route.pairing!r} "
            "chooses among candidates; use pairing='first-two'"
        )
    return policy_pairs(sampler, world.preference)


def stated_objective(
    method: Method, policy: EnumerablePolicy, world: TabularWorld, frozen: EnumerablePolicy | None = None
) -> Tensor:
    """The loss whose gradient (at ``policy = frozen``) a method follows, as sums over the distributions.

        (1 - sum of weights) E_D[loss]                                     rows that take no route
        + weight * coefficient * E_D[loss]                                 a route on the data set's completions
        + weight * (coefficient * E_{y ~ frozen}[loss of policy]           a route on the policy's completions
                    + correction * E_{y ~ policy}[loss of frozen])
        + coefficient * KL(pi_ref || policy)                               addends

    Without a correction the samples are held fixed: the gradient is that of the expected loss on the completions of
    *today's* policy, not of an objective of the policy alone. With ``correction = coefficient`` the two parts add up to
    the gradient of ``coefficient * E_{y ~ policy}[loss of policy]``, the paper's objective.

    Args:
        policy: where the objective is evaluated; differentiate in its parameters.
        frozen: the policy of the moment that draws the completions; None = a frozen copy of ``policy``.

    Returns:
        Scalar.
    """
    frozen = policy.frozen() if frozen is None else frozen
    objective = method.bound_objective()
    value = method.offline_weight * risk(policy, world.reference, world.data, objective)
    for route in method.active_routes:
        value = value + route.weight * _stated_route(method, route, policy, world, frozen)
    for addend in method.addends:
        table = world.reference.log_probs().detach()
        each = addend.function(policy.log_probs().flatten(), table.flatten())
        value = value + addend.coefficient * (table.exp().flatten() * each).sum() / table.shape[0]
    return value


def _stated_route(
    method: Method, route: Route, policy: EnumerablePolicy, world: TabularWorld, frozen: EnumerablePolicy
) -> Tensor:
    objective = method.bound_objective()

    def loss(logps: LogProbs, p: Tensor | None) -> Tensor:
        p = implicit_preference(logps, method.beta) if route.is_self_labeled else p
        if route.labels == "averaged" or p is None:
            return objective(logps, p)
        return p * objective(logps, torch.ones_like(p)) + (1 - p) * objective(logps, torch.zeros_like(p))

    learned = risk(policy, world.reference, _route_pairs(route, frozen, world), loss)
    if route.responses == "dataset" or not route.correction:
        return route.coefficient * learned
    drawn = risk(frozen, world.reference, _route_pairs(route, policy, world), loss)
    return route.coefficient * learned + route.correction * drawn
