"""Training on drawn pairs and drawn labels, many runs at once: each run is one prompt of a tabular policy.

Axis legend: ``rounds`` of one label a run, ``runs``, ``responses``. Log-probs in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import SpecError
from setsail.lab.gradients import gradient
from setsail.lab.groups import TabularWorld
from setsail.methods import Method, route_loss
from setsail.objectives import GroupLogProbs
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy


@dataclass(frozen=True, slots=True)
class SampledRuns:
    """What happened.

    Attributes:
        drawn: the two responses of each round and run, shape ``(rounds, runs, 2)``.
        log_probs: of the policies after each round, shape ``(rounds, runs, responses)``.
    """

    drawn: Tensor
    log_probs: Tensor

    def found(self, response: int) -> list[int | None]:
        """For each run the round, counted from 1, in which the first draw was ``response``; None = never."""
        hits = (self.drawn[..., 0] == response).int()
        return [int(run.argmax()) + 1 if bool(run.any()) else None for run in hits.T]


def sampled_runs(
    method: Method,
    world: TabularWorld,
    uniforms: Tensor,
    *,
    memory: bool = False,
    steps: int = 1,
    rate: float = 1.0,
) -> SampledRuns:
    """Gradient descent on pairs that are drawn and labeled one a round, from the reference, in softmax logits.

    Args:
        method: its one route, of two draws of the policy or of the reference; its objective, and addends on the
            reference's or the policy's completions.
        world: of one prompt; every run starts at its reference.
        uniforms: numbers in [0, 1) for the two draws and the label, shape ``(rounds, runs, 3)``.
        memory: descend on the sum over the pairs of all rounds so far; False: on the last round's alone, as training
            does.
        steps: gradient steps a round.
        rate: step size on the sum.

    Raises:
        SpecError: a method of another kind.

    >>> from setsail import methods
    >>> from setsail.lab.rare_arm import rare_arm
    >>> runs = sampled_runs(methods.get("xpo"), rare_arm()[1], torch.full((3, 2, 3), 0.5, dtype=torch.float64))
    >>> tuple(runs.drawn.shape), runs.drawn.abs().max().item()
    ((3, 2, 2), 0)
    """
    _check(method)
    runs = uniforms.shape[1]
    reference = TabularPolicy(world.reference.log_probs().expand(runs, -1)).frozen()
    policy = TabularPolicy(reference.log_probs())
    prompt = torch.arange(runs)
    drawn: list[Tensor] = []
    labels: list[Tensor] = []
    path: list[Tensor] = []
    for numbers in uniforms:
        sampler = {"policy": policy, "reference": reference}
        sides = [sampler[source.origin] for source in method.routes[0].candidates]
        pair = [side.sample(prompt, numbers[:, at : at + 1])[:, 0] for at, side in enumerate(sides)]
        drawn.append(torch.stack(pair, -1))
        labels.append((numbers[:, 2] < world.preference[0, pair[0], pair[1]]).to(torch.float64))
        learnt = slice(None) if memory else slice(-1, None)
        members, p = torch.stack(drawn[learnt]), torch.stack(labels[learnt])
        for _ in range(steps):
            slope = gradient(_summed_loss(method, policy, reference, members, p), policy)
            with torch.no_grad():
                policy.logits.sub_(rate * slope.view_as(policy.logits))
        path.append(policy.log_probs().detach())
    return SampledRuns(torch.stack(drawn), torch.stack(path))


def _check(method: Method) -> None:
    origins = [source.origin for route in method.routes for source in route.candidates]
    if len(method.routes) != 1 or len(origins) != 2 or not set(origins) <= {"policy", "reference"}:
        raise SpecError(
            f"{method.name}: sampled runs compare two draws, each of the policy or of the reference, on one route; got "
            f"{len(method.routes)} routes of {', '.join(origins) or 'no draws'}"
        )
    for addend in method.addends:
        if addend.samples not in ("reference", "policy"):
            raise SpecError(
                f"{method.name}: addend {addend.name!r} reads completions other than the two that are drawn"
            )


def _summed_loss(
    method: Method, policy: EnumerablePolicy, reference: EnumerablePolicy, members: Tensor, p: Tensor
) -> Tensor:
    """Sum over rounds and runs of the pairs' losses and addends; ``members`` has shape ``(rounds, runs, 2)``."""
    route = method.routes[0]
    prompt = torch.arange(members.shape[1]).unsqueeze(-1).expand_as(members)
    logps = GroupLogProbs(
        policy.log_probs()[prompt, members].view(-1, 2), reference.log_probs()[prompt, members].view(-1, 2)
    )
    value = route_loss(method, route, logps, p.flatten()).surrogate.sum()
    for addend in method.addends:
        for side, source in enumerate(route.candidates):
            if source.origin == addend.samples:
                each = addend.function(logps.policy[:, side], logps.reference[:, side])
                value = value + addend.coefficient * each.sum()
    return value
