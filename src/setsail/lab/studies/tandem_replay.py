"""One loss on one stream of pairs, three ways: drawn as the policy learns, replayed in order, replayed shuffled.

One prompt, six responses with three normal features each, a log-linear policy that starts uniform, normal rewards,
Bradley-Terry preferences, IPO without length normalization. Win rates are against the reference, exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.methods import Method, get, route_loss
from setsail.policies.tabular import EnumerablePolicy, LogLinearPolicy

RESPONSES, FEATURES = 6, 3
UPDATES, RATE, BETA, EVERY = 800, 0.02, 0.3, 20

Drawn = tuple[int, int, float]
"""A pair as it was trained on: first, second, and the label drawn for it (1 = first preferred)."""


def world_of(seed: int) -> tuple[LogLinearPolicy, lab.TabularWorld]:
    """A policy at its uniform reference, and what it trains on; the data set holds the reference's pairs."""
    numbers = stream(seed, "study", "online-offline")
    features = torch.from_numpy(numbers.normal(size=(1, RESPONSES, FEATURES)))
    reward = torch.from_numpy(numbers.normal(size=(1, RESPONSES)))
    policy, preference = LogLinearPolicy(features), lab.bradley_terry(reward)
    reference = policy.frozen()
    return policy, lab.TabularWorld(reference, lab.policy_pairs(reference, preference), preference, reward)


def without_lengths(name: str, beta: float) -> Method:
    """A method of IPO at this beta, on sums of log-probs."""
    return get(name).configured(parameters={"beta": beta, "length_normalize": False})


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy: KL(policy || reference) in nats, and how often it wins against the reference."""

    kl: float
    win: float


def measured(policy: EnumerablePolicy, world: lab.TabularWorld) -> Measured:
    """KL and win rate, exact."""
    mine, theirs = (each.log_probs().detach().exp()[0] for each in (policy, world.reference))
    return Measured(lab.reverse_kl(policy, world.reference).item(), (mine @ world.preference[0] @ theirs).item())


# Replay: single sampled pairs, one an update.


@dataclass(frozen=True, slots=True)
class Run:
    """The weights at the end, the pairs in their order, and the policy every so many updates."""

    weights: Tensor
    pairs: tuple[Drawn, ...]
    path: tuple[Measured, ...]


def _slope(method: Method, policy: EnumerablePolicy, world: lab.TabularWorld, pair: Drawn) -> Tensor:
    first, second, label = pair
    index = torch.tensor([[0], [first], [second]])
    logps = policy.pair_log_probs(world.reference, *index)
    loss = route_loss(method, method.active_routes[0], logps.group(), torch.tensor([label], dtype=torch.float64))
    return lab.gradient(loss.surrogate.sum(), policy)


def _draw(seed: int, world: lab.TabularWorld) -> Iterator[tuple[Tensor, float]]:
    """Uniforms for two responses, and one for the label, update after update."""
    numbers = stream(seed, "study", "online-offline", "draws")
    while True:
        uniform = torch.from_numpy(numbers.random(3))
        yield uniform[None, :2], uniform[2].item()


def _trained(seed: int, given: Sequence[Drawn] | None) -> Run:
    """Train on pairs of the policy as it learns (None), or on given pairs in their order."""
    policy, world = world_of(seed)
    uniforms, stored = _draw(seed, world), iter(given or ())
    pairs: list[Drawn] = []

    def direction(
        method: Method, policy: EnumerablePolicy, world: lab.TabularWorld, sampler: EnumerablePolicy
    ) -> Tensor:
        if given is None:
            two, label = next(uniforms)
            first, second = sampler.sample(torch.tensor([0]), two)[0].tolist()
            pairs.append((first, second, float(label < world.preference[0, first, second])))
        else:
            pairs.append(next(stored))
        return _slope(method, policy, world, pairs[-1])

    path = [measured(policy, world)]
    for step in lab.train(
        without_lengths("oaif-ipo", BETA), policy, world, steps=UPDATES, rate=RATE, direction=direction
    ):
        if step.number % EVERY == 0:
            path.append(measured(policy, world))
    return Run(policy.weights.detach().clone(), tuple(pairs), tuple(path))


@cache
def online(seed: int) -> Run:
    """Pairs drawn from the policy as it learns, recorded."""
    return _trained(seed, None)


@cache
def replayed(seed: int) -> Run:
    """Offline training on the recorded pairs, in their order."""
    return _trained(seed, online(seed).pairs)


@cache
def shuffled(seed: int) -> Run:
    """Offline training on the recorded pairs, in a random order."""
    pairs = online(seed).pairs
    order = stream(seed, "study", "online-offline", "shuffle").permutation(len(pairs))
    return _trained(seed, [pairs[index] for index in order])
