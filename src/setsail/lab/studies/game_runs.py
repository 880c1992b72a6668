"""What the studies of preference games share: a game as a world to train in, a method's iterates, curves and cells.

Legend: ``n`` responses to one prompt, ``kept`` iterates; policies are log-probs ``(n,)``, nats, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies.records import Cell, Claim, Curve, Relation, Style
from setsail.methods import Method, Source
from setsail.policies.tabular import TabularPolicy

FLOOR = 1e-20
"""Gaps and KLs below are not told apart: most of what is left there is rounding."""


def game_world(game: lab.PreferenceGame, opponent: Tensor | None = None) -> lab.TabularWorld:
    """The game as what a method trains on: its reference, its win rates as the labeler, a tie as the data set.

    Args:
        opponent: log-probs of the method's opponent; None = the reference.
    """
    tie = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([0.5], dtype=torch.float64))
    frozen = None if opponent is None else frozen_policy(opponent)
    return lab.TabularWorld(frozen_policy(game.reference), tie, game.preference[None], opponent=frozen)


def frozen_policy(log_probs: Tensor) -> TabularPolicy:
    """A policy that takes no gradient."""
    return TabularPolicy(log_probs.detach()[None].clone()).frozen()


def iterates(
    method: Method, world: lab.TabularWorld, start: Tensor, *, steps: int, rate: float, every: int = 1
) -> Tensor:
    """The policies of a training run: the start and what stands after every so many optimizer steps, ``(kept, n)``."""
    policy = TabularPolicy(start.detach()[None].clone())
    kept = [policy.log_probs()[0].detach()]
    for step in lab.train(method, policy, world, steps=steps, rate=rate):
        if step.number % every == 0:
            kept.append(policy.log_probs()[0].detach())
    return torch.stack(kept)


def drawn_from(method: Method, *sources: Source) -> Method:
    """The method with other candidates on its only route."""
    (route,) = method.routes
    return method.with_parts(routes=(replace(route, candidates=sources),))


def told(value: float, floor: float = FLOOR) -> Cell:
    """A number for a table; below the floor, that it is below."""
    return value if value >= floor else f"< {floor:.0e}"


def curve(
    label: str,
    values: Tensor | Sequence[float],
    *,
    points: int = 150,
    floor: float = FLOOR,
    color: int | None = None,
    style: Style = "line",
) -> Curve:
    """Values of steps 0, 1, 2, ... as a curve of about so many points that ends where they reach the floor."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    shown = []
    for step in range(0, len(numbers), max(1, len(numbers) // points)):
        if not numbers[step] > floor:
            break
        shown.append(step)
    return Curve(label=label, x=shown, y=[numbers[step].item() for step in shown], color=color, style=style)


def claim(sentence: str, measured: float, relation: Relation, expected: float, tolerance: float = 0.0) -> Claim:
    """A claim on one line."""
    return Claim(sentence=sentence, measured=measured, relation=relation, expected=expected, tolerance=tolerance)
