"""A whole method on an enumerable policy: its stated objective, and the expected gradient of what training computes.

The two are written independently where an objective can be stated (as sums over the distributions; the gradient as the
expectation of :func:`setsail.methods.route_loss` over candidates, choices and labels) so that one proves the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from setsail.core import SpecError
from setsail.lab.exact import risk
from setsail.lab.gradients import gradient
from setsail.lab.groups import CandidateDraw, TabularWorld, WeightedGroups, outcomes, route_groups
from setsail.lab.pairs import WeightedPairs, policy_pairs
from setsail.methods import Addend, Comparison, Method, Route, route_loss
from setsail.objectives import SURROGATES, LogProbs, implicit_preference
from setsail.policies.tabular import EnumerablePolicy
from setsail.policies.tabular_sampling import next_token_log_probs, visits


def mixture_gradient(
    method: Method,
    policy: EnumerablePolicy,
    world: TabularWorld,
    baseline: float = 0.0,
    sampler: EnumerablePolicy | None = None,
) -> Tensor:
    """The expected gradient of one training step: routes, prompts, candidates, choices and labels enumerated.

    A row that gives no group (a tie, nothing selected) contributes nothing here; training averages over the rows that
    do, which rescales all routes alike. Every group counts as labeled, also on a route that asks about a share of each
    step's groups only (``acquire``): which ones is decided between the rows of a step, which are not enumerated.

    Args:
        baseline: a constant in place of the leave-one-out mean; the expectation does not depend on it.
        sampler: who draws the policy's completions: the policy itself (None), or what it was some steps ago.

    Returns:
        Flat, shape ``(parameters,)``; training descends along it.
    """
    sampler = policy.frozen() if sampler is None else sampler
    value = torch.zeros((), dtype=torch.float64)
    if method.offline_weight:
        value = method.offline_weight * _offline(method, policy, world)
    for route in method.active_routes:
        for groups in route_groups(method, route, sampler, world):
            facts = _facts(method, groups, groups.log_probs(sampler, world.reference).policy.detach(), baseline)
            value = value + route.weight * _expected_surrogate(method, route, groups, policy, world, baseline, facts)
    for addend in method.addends:
        value = value + addend.coefficient * _addend_mean(addend, method, policy, sampler, world)
    return gradient(value, policy)


def _expected_surrogate(
    method: Method,
    route: Route,
    groups: WeightedGroups,
    policy: EnumerablePolicy,
    world: TabularWorld,
    baseline: float,
    facts: Mapping[str, Tensor],
) -> Tensor:
    logps = groups.log_probs(policy, world.reference)

    def surrogate(uniform: Tensor) -> Tensor:
        return route_loss(
            method, route, logps, groups.p, groups.values, facts, uniform=uniform, baseline=baseline
        ).surrogate

    # A uniform of 0 draws "first preferred" and a uniform of 1 "second preferred", whatever the probability.
    value = surrogate(torch.zeros_like(groups.weight))
    if route.labels == "sampled":
        own = implicit_preference(logps.pair(), method.beta).detach()
        label = own if route.is_self_labeled or groups.p is None else groups.p
        value = label * value + (1 - label) * surrogate(torch.ones_like(label))
    return (groups.weight * value).sum()


def _offline(method: Method, policy: EnumerablePolicy, world: TabularWorld) -> Tensor:
    """The mean loss of the data set's rows, in the form that the method reads them."""
    groups = _offline_groups(method, world)
    logps = groups.log_probs(policy, world.reference)
    facts = _facts(method, groups, logps.policy.detach(), 0.0)
    return (groups.weight * route_loss(method, None, logps, groups.p, groups.values, facts).surrogate).sum()


def _offline_groups(method: Method, world: TabularWorld) -> WeightedGroups:
    """Pairs with their preference, or each answer alone with its mark: the preferred one +1, the other -1."""
    data, weight = world.data, world.data.weight.detach()
    assert data.p is not None, "the data set's pairs carry a preference"
    if method.form == "singles":
        marks = torch.where(data.p >= 0.5, 1.0, -1.0).to(torch.float64)
        members = torch.cat([data.first, data.second]).unsqueeze(-1)
        values = torch.cat([marks, -marks]).unsqueeze(-1)
        return WeightedGroups(data.prompt.repeat(2), members, weight.repeat(2) / 2, None, values)
    members = torch.stack([data.first, data.second], -1)
    values = torch.stack([data.p, 1 - data.p], -1)
    return WeightedGroups(data.prompt, members, weight, data.p, values)


def _facts(method: Method, groups: WeightedGroups, sampling: Tensor, constant: float) -> dict[str, Tensor]:
    """What training would work out for the objective; a number of the batch is a constant here."""
    number = torch.full((), constant, dtype=torch.float64)
    mean = torch.zeros_like(groups.weight) if groups.values is None else groups.values.mean(-1)
    known = {
        "sampling": sampling,
        "group-mean": mean,
        "batch-mean": number.expand_as(groups.weight),
        "mismatched": number,
        "midpoint": number,
    }
    return {argument: known[fact] for argument, fact in method.facts.items()}


def _addend_mean(
    addend: Addend, method: Method, policy: EnumerablePolicy, sampler: EnumerablePolicy, world: TabularWorld
) -> Tensor:
    """The mean of an addend over the completions it reads."""
    law = _law_of_samples(addend, method, sampler, world)
    if addend.distributions:
        tokens = next_token_log_probs(policy).flatten(0, 1)
        frozen = next_token_log_probs(world.reference).detach().flatten(0, 1)
        each = addend.function(tokens, frozen).view(len(law), -1) @ visits(policy).T
    else:
        table, frozen = policy.log_probs(), world.reference.log_probs().detach()
        if addend.per_token:
            table, frozen = table / policy.lengths(), frozen / policy.lengths()
        each = addend.function(table.flatten(), frozen.flatten())
    return (law.flatten() * each.flatten()).sum()


def _law_of_samples(addend: Addend, method: Method, sampler: EnumerablePolicy, world: TabularWorld) -> Tensor:
    """How likely each response is among the completions that an addend reads, shape ``(prompts, responses)``.

    As in training: a response that a row has twice is read once, and a row that gives no group is not read at all.
    """
    frozen = world.reference.log_probs().detach()
    if addend.samples == "fresh-reference":
        return frozen.exp() / frozen.shape[0]
    if addend.samples == "preferred":
        return _law_of_preferred(addend, method, world)
    law = torch.zeros_like(frozen)
    for route in method.active_routes:
        for draw, chance, comparisons in outcomes(method, route, sampler, world):
            for response in _read(addend, draw, comparisons):
                law[draw.prompt, response] += route.weight * chance
    if addend.samples == "compared":
        data = world.data
        for members in (data.first, data.second):
            law.index_put_((data.prompt, members), method.offline_weight * data.weight.detach(), accumulate=True)
    return law / law.sum() if bool(law.any()) else law


def _read(addend: Addend, draw: CandidateDraw, comparisons: list[Comparison]) -> set[int]:
    """The responses of a row that an addend reads."""
    if addend.samples == "compared":
        return {draw.responses[i] for comparison in comparisons for i in comparison.indices}
    given = zip(draw.responses, draw.origins, strict=True)
    return {response for response, origin in given if comparisons and origin == addend.samples}


def _law_of_preferred(addend: Addend, method: Method, world: TabularWorld) -> Tensor:
    """How likely each response is the preferred one of a data set row; ties have none."""
    if method.active_routes:
        raise SpecError(f"addend {addend.name!r} reads preferred completions, whose law on routes is not enumerated")
    data = world.data
    assert data.p is not None, "the data set's pairs carry a preference"
    law = torch.zeros_like(world.reference.log_probs())
    decided = data.p != 0.5
    preferred = torch.where(data.p > 0.5, data.first, data.second)
    law.index_put_((data.prompt[decided], preferred[decided]), data.weight.detach()[decided], accumulate=True)
    return law / law.sum()


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

    Covers pairwise objectives on independent pairs of the policy's or the data set's completions.

    Args:
        policy: where the objective is evaluated; differentiate in its parameters.
        frozen: the policy of the moment that draws the completions; None = a frozen copy of ``policy``.

    Returns:
        Scalar.

    Raises:
        SpecError: a route outside that, or an objective that is none of pairs: over groups, or a policy gradient.
    """
    if method.reads_values or method.objective in SURROGATES:
        raise SpecError(
            f"{method.name}: the stated objective is an expected loss over pairs, but {method.objective.__name__} is "
            f"{'over groups' if method.reads_values else 'a policy gradient, whose value means nothing'}"
        )
    frozen = policy.frozen() if frozen is None else frozen
    objective = method.bound_objective()
    value = method.offline_weight * risk(policy, world.reference, world.data, objective)
    for route in method.active_routes:
        value = value + route.weight * _stated_route(method, route, policy, world, frozen)
    for addend in method.addends:
        value = value + addend.coefficient * _addend_mean(addend, method, policy, frozen, world)
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

    learned = risk(policy, world.reference, _independent_pairs(method, route, frozen, world), loss)
    if not route.draws or not route.correction:
        return route.coefficient * learned
    drawn = risk(frozen, world.reference, _independent_pairs(method, route, policy, world), loss)
    return route.coefficient * learned + route.correction * drawn


def _independent_pairs(method: Method, route: Route, sampler: EnumerablePolicy, world: TabularWorld) -> WeightedPairs:
    if not route.draws:
        return world.data
    if not route.is_on_policy or route.pairing != "first-two" or route.label != "preference":
        raise SpecError(
            f"route {route.name!r}: the stated objective is over independent pairs of the policy under the labeler's "
            f"preference, but this route compares {route.origins} by {route.pairing}"
        )
    return policy_pairs(sampler, world.preference)
