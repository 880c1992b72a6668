"""Exact rounds of self-play: the catalogue's SPPO, DNO and INPO with each round's loss minimized to the end.

A round draws every possible group of answers from the policy at its start, labels it as the method does, and minimizes
the expected loss over all policies. Policies are log-probs ``(n,)``, nats, on a game of one prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.newton import newton_step
from setsail.lab.studies.game_runs import drawn_from, frozen_policy, game_world
from setsail.methods import Method, Source, get, route_loss
from setsail.policies.tabular import TabularPolicy
from setsail.reference import every, fixed

START = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
COLLAPSED = 0.999
TAU_SHARE = 1 / 3
"""INPO's tau / eta: the share of the start in its reference, as published and in the catalogue."""


def minimize(loss: Callable[[TabularPolicy], Tensor], start: Tensor) -> Tensor:
    """The policy of least loss: quasi-Newton, then Newton steps while they lower the gradient.

    Newton's method alone will not do: a loss of log-ratios, such as SPPO's, need not be convex in the logits.
    """
    policy = TabularPolicy(start.detach()[None].clone())
    optimizer = torch.optim.LBFGS(
        policy.parameters(), max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(policy)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    size, logits = float("inf"), policy.logits
    for _ in range(20):
        value = loss(policy)
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        if not slope.norm() < size:
            break
        size, kept = slope.norm().item(), logits.detach().clone()
        step = newton_step(value, policy)
        with torch.no_grad():
            logits.sub_(step.view_as(logits))
    return kept[0].log_softmax(-1)


def solved_round(method: Method, policy: Tensor, world: lab.TabularWorld) -> Tensor:
    """The minimum of the method's expected loss on answers that ``policy`` draws."""
    sampler = frozen_policy(policy)
    parts = [
        (route, found) for route in method.active_routes for found in lab.route_groups(method, route, sampler, world)
    ]

    def loss(candidate: TabularPolicy) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for route, groups in parts:
            logps = groups.log_probs(candidate, world.reference)
            learned = route_loss(method, route, logps, groups.p, groups.values).surrogate
            value = value + route.weight * (groups.weight * learned).sum()
        return value

    return minimize(loss, policy)


def next_policy(method: Method, policy: Tensor, game: lab.PreferenceGame) -> Tensor:
    """One round: the reference is the round's policy, mixed with the start where the method anchors it."""
    reference = game.mixed(policy, method.reference.anchor)
    return solved_round(method, policy, replace(game_world(game), reference=frozen_policy(reference)))


# The catalogue's methods: as their papers derive them, and as they are shipped.


def sppo(eta: float, answers: int = 2, shipped: bool = False) -> Method:
    """SPPO; not as shipped, both of two answers are learnt from, whatever their win rates."""
    method = get("sppo").configured(parameters={"beta": 1 / eta}, generations=answers)
    return method if shipped else method.configured(pairing="first-two")


def dno(eta: float, answers: int = 2) -> Method:
    """DNO with win rates among so many answers."""
    return get("dno").configured(parameters={"beta": eta}, generations=answers)


def dno_by_law(eta: float, policy: Tensor, game: lab.PreferenceGame, drawn: Tensor) -> Tensor:
    """A round of DNO with exact win rates, on pairs that another policy draws."""
    rates = game.win_rates(policy)
    target = torch.sigmoid(rates.unsqueeze(-1) - rates)
    (route,) = get("dno").routes
    method = get("dno").with_parts(opponent=fixed(), routes=(replace(route, label="preference"),))
    method = drawn_from(method, Source(origin="opponent", count=2)).configured(parameters={"beta": eta})
    world = replace(game_world(game, opponent=drawn), reference=frozen_policy(policy), preference=target[None])
    return solved_round(method, policy, world)


def inpo(eta: float, answers: int = 2, shipped: bool = False) -> Method:
    """INPO; not as shipped, two answers are compared under their probability instead of best and worst by verdict."""
    method = get("inpo").configured(parameters={"beta": eta}, generations=answers)
    if shipped:
        return method
    (route,) = method.routes
    return method.with_parts(routes=(replace(route, pairing="first-two", label="preference"),))


@cache
def rounds(name: str, scale: float, answers: int, count: int) -> Tensor:
    """A shipped method on the uneven cycle from ``START``, shape ``(rounds + 1, 3)``; ``scale`` is the method's beta.

    At most ``count`` rounds: it ends with the round that leaves less than 0.001 to all answers but one, since hardly
    anything else is drawn from then on, wherever the loss has its minimum.
    """
    makers: dict[str, Callable[[], Method]] = {
        "sppo": lambda: sppo(1 / scale, answers, shipped=True),
        "dno": lambda: dno(scale, answers),
        "inpo": lambda: inpo(scale, answers, shipped=True),
    }
    game = lab.uneven_cycle(scale * TAU_SHARE if name == "inpo" else 0.0)
    found = [START]
    while len(found) <= count and found[-1].exp().max() < COLLAPSED:
        found.append(next_policy(makers[name](), found[-1], game))
    return torch.stack(found)


def trained_rounds(method: Method, game: lab.PreferenceGame, start: Tensor, count: int, rate: float) -> Tensor:
    """The same by plain training: rounds of 60 gradient steps under the method's own rules, ``(count + 1, n)``."""
    steps = 60
    rule = every(steps, anchor=method.reference.anchor)
    policy = TabularPolicy(start[None].clone())
    world = replace(game_world(game), reference=frozen_policy(start))
    found = [start]
    for step in lab.train(
        method.configured(reference=rule, staleness=steps - 1), policy, world, steps=count * steps, rate=rate
    ):
        if step.number % steps == 0:
            found.append(policy.log_probs()[0].detach())
    return torch.stack(found)
