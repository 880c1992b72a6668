"""A whole run of a method on an enumerable policy: exact steps under training's own rules of rounds and references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from setsail.lab.gradients import along, parameters
from setsail.lab.groups import TabularWorld
from setsail.lab.mixture import mixture_gradient
from setsail.methods import Method
from setsail.policies import Extrapolation, FrozenPolicies, Lookahead
from setsail.policies.references import FrozenCopy
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of a run: its number, counted from 1, and the expected gradient it followed."""

    number: int
    gradient: Tensor


def train(
    method: Method,
    policy: EnumerablePolicy,
    world: TabularWorld,
    *,
    steps: int,
    rate: float = 1.0,
    direction: Callable[[Method, EnumerablePolicy, TabularWorld, EnumerablePolicy], Tensor] | None = None,
) -> Iterator[Step]:
    """Train ``policy`` in place with plain gradient descent, one :class:`Step` at a time.

    Args:
        method: its routes, objective, reference and opponent rules, rounds (staleness) and update are followed.
        policy: changed in place; read it between steps.
        world: gives data, labeler and the starting reference; an opponent starts as the reference. An anchored
            reference starts as the product of that reference and the policy.
        steps: optimizer steps. With extragradient updates, two make one; a last one without its second is taken back.
        rate: step size.
        direction: ``(method, policy, world, sampler) -> gradient``; None = the expected gradient,
            :func:`~setsail.lab.mixture.mixture_gradient`. A sampled estimate can stand in its place.

    >>> from setsail import lab, methods
    >>> policy, world = lab.golden_world()
    >>> [step.number for step in train(methods.get("online-dpo"), policy, world, steps=3)]
    [1, 2, 3]
    """
    follow = _expected if direction is None else direction
    frozen = _hold(method, policy, world)
    lookahead = Lookahead() if method.update == "extragradient" else None
    optimizer = torch.optim.SGD(parameters(policy), lr=rate)
    sampler = policy.frozen()
    for done in range(steps):
        if done % (method.staleness + 1) == 0:
            sampler = policy.frozen()
        if lookahead is not None:
            lookahead.before_update(done, policy, optimizer)
        slope = follow(method, policy, _now(world, frozen), sampler)
        for parameter, part in along(slope, policy):
            parameter.grad = part.clone()
        optimizer.step()
        if lookahead is not None and done + 1 == steps:
            lookahead.finish(policy, optimizer)
        frozen.after_step(done + 1, is_last=done + 1 == steps)
        yield Step(done + 1, slope)


def _expected(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
    return mixture_gradient(method, policy, world, sampler=sampler)


def _hold(method: Method, policy: EnumerablePolicy, world: TabularWorld) -> FrozenPolicies:
    rule = method.reference
    # With an anchor the starting reference is the part that stays, and the policy of the last move the other one.
    moving = policy if rule.anchor else world.reference
    return FrozenPolicies(
        method,
        FrozenCopy(policy, moving.frozen()),
        None if method.opponent is None else FrozenCopy(policy, (world.opponent or world.reference).frozen()),
        Extrapolation(policy, rule.momentum) if rule.momentum else None,
    )


def _now(world: TabularWorld, frozen: FrozenPolicies) -> TabularWorld:
    """The world with the frozen policies as they are now; an anchored reference is a product."""
    reference = frozen.reference.module  # type: ignore[attr-defined]  # a FrozenCopy
    anchor = frozen.method.reference.anchor
    if anchor:
        table = anchor * world.reference.log_probs() + (1 - anchor) * reference.log_probs()
        reference = TabularPolicy(table.detach()).requires_grad_(False)
    opponent = None if frozen.opponent is None else frozen.opponent.module  # type: ignore[attr-defined]
    return replace(world, reference=reference, opponent=opponent)
