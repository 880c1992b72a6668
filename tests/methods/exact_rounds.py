"""Runs without noise and without inner steps: each optimizer step of :func:`setsail.lab.train` solves a whole round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from setsail import lab
from setsail.lab import PreferenceGame, TabularWorld
from setsail.methods import Method
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


def law(*shares: float) -> TabularPolicy:
    """One prompt, answered with these probabilities."""
    return TabularPolicy(torch.tensor([shares], dtype=torch.float64).log())


def scored_world(reference: TabularPolicy, *reward: float) -> TabularWorld:
    """One prompt; the labeler gives these scores and their Bradley-Terry preferences. The data set is a stand-in."""
    scores = torch.tensor([reward], dtype=torch.float64)
    rows = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.ones(1, dtype=torch.float64))
    return TabularWorld(reference.frozen(), rows, lab.bradley_terry(scores), scores)


def game_world(game: PreferenceGame, reference: Tensor | None = None) -> TabularWorld:
    """One prompt; the labeler only compares, as the game says."""
    table = game.reference if reference is None else reference
    rows = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.ones(1, dtype=torch.float64))
    return TabularWorld(TabularPolicy(table[None]).frozen(), rows, game.preference[None])


def shares(policy: EnumerablePolicy) -> list[float]:
    """The probabilities of the only prompt's responses."""
    found: list[float] = policy.log_probs().detach().exp()[0].tolist()
    return found


def solved(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
    """The step (times -1) to where the method's expected gradient vanishes, completions still the sampler's.

    Newton's method on :func:`setsail.lab.mixture_gradient`, its Jacobian by central differences; the last logit stays,
    since a constant on all of them changes nothing.
    """
    assert isinstance(policy, TabularPolicy)
    assert len(policy.logits) == 1
    found = TabularPolicy(policy.logits)

    def slope(offset: Tensor | None = None) -> Tensor:
        moved = found if offset is None else TabularPolicy(found.logits + offset)
        return lab.mixture_gradient(method, moved, world, sampler=sampler)[:-1]

    free = torch.eye(policy.logits.shape[1], dtype=torch.float64)[:-1] * 1e-5
    for _ in range(60):
        jacobian = torch.stack([(slope(each) - slope(-each)) / 2e-5 for each in free], -1)
        step = torch.linalg.solve(jacobian, slope())
        length = step.abs().max().item()
        with torch.no_grad():
            found.logits[0, :-1] -= step / max(1.0, length / 2)
        if length < 1e-12:
            break
    else:
        raise AssertionError(f"no solution found: the last step was still {step.tolist()}")
    return (policy.logits - found.logits).detach().flatten()


def played(
    method: Method,
    start: TabularPolicy,
    world: TabularWorld,
    rounds: int,
    direction: Callable[[Method, EnumerablePolicy, TabularWorld, EnumerablePolicy], Tensor] = solved,
) -> list[TabularPolicy]:
    """The policy after each of ``rounds`` rounds of one exact step each; the reference moves with the rounds."""
    rule = method.reference
    method = method.configured(staleness=0, reference=replace(rule, steps=1) if rule.moves else rule)
    policy = TabularPolicy(start.logits)
    return [policy.frozen() for _ in lab.train(method, policy, world, steps=rounds, rate=1.0, direction=direction)]
