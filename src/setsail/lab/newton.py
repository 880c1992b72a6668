"""Rounds solved to their minimum: Newton's method as the direction that :func:`setsail.lab.train` follows.

Legend: ``parameters``; gradients are flat vectors, as in :mod:`setsail.lab.gradients`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.core import SpecError
from setsail.lab.gradients import parameters
from setsail.lab.groups import TabularWorld, WeightedGroups, route_groups
from setsail.methods import Method, Route, route_loss
from setsail.policies.tabular import EnumerablePolicy


class Newton:
    """``H^+ g`` of a method's expected loss on the completions of the moment; ``lab.train(..., direction=Newton())``.

        theta <- theta - H^+ g,      g = grad E[loss], H = grad^2 E[loss], the samples and the references held fixed

    With rounds (``staleness`` k - 1) of a dozen steps and a rate of 1, each round ends at its minimum to rounding:
    its fixed point is that of gradient descent with any rate, reached in a step of its own size for every response,
    also for those that the sampler hardly gives. In the logits of a softmax policy the loss is convex for the
    logistic and squared losses and for the likelihood.

    The groups are enumerated once for each sampler and pair of frozen policies.

    Args:
        longest: no coordinate of a step is larger, in the parameters' unit (nats for logits): far from the minimum
            a whole step would overshoot.

    Raises:
        SpecError: when called with a method that has offline pairs, addends, self-labeled routes or sampled labels.

    >>> from setsail import lab, methods
    >>> from setsail.reference import every
    >>> policy, world = lab.golden_world()
    >>> method = methods.get("iterative-dpo").configured(
    ...     parameters={"beta": 0.5}, reference=every(12), staleness=11)
    >>> _ = list(lab.train(method, policy, world, steps=12, direction=Newton()))
    >>> best = lab.optimal_policy(world.reference, world.reward, beta=0.5)
    >>> (policy.log_probs() - best.log_probs()).abs().max().item() < 1e-12
    True
    """

    def __init__(self, longest: float = 2.0) -> None:
        self.longest = longest
        self._held: tuple[Tensor, ...] = ()
        self._groups: list[tuple[Route, WeightedGroups]] = []

    def __call__(
        self, method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy
    ) -> Tensor:
        """The step to subtract, flat, shape ``(parameters,)``."""
        _check(method)
        self._enumerate(method, world, sampler)
        value = torch.zeros((), dtype=torch.float64)
        for route, groups in self._groups:
            logps = groups.log_probs(policy, world.reference)
            each = route_loss(method, route, logps, groups.p, groups.values).surrogate
            value = value + route.weight * (groups.weight * each).sum()
        return newton_step(value, policy, self.longest)

    def _enumerate(self, method: Method, world: TabularWorld, sampler: EnumerablePolicy) -> None:
        others = [world.reference, *([] if world.opponent is None else [world.opponent])]
        held = tuple(policy.log_probs().detach() for policy in (sampler, *others))
        same = len(held) == len(self._held) and all(map(torch.equal, held, self._held))
        if not same:
            self._held = held
            self._groups = [
                (route, groups)
                for route in method.active_routes
                for groups in route_groups(method, route, sampler, world)
            ]


def newton_step(value: Tensor, policy: EnumerablePolicy, longest: float = 2.0) -> Tensor:
    """``H^+ g`` of a scalar in the policy's parameters, flat: what Newton's method subtracts.

    A step with a coordinate beyond ``longest`` is scaled down as a whole, so that what the scalar does not depend on
    stays as it is.

    >>> from setsail.policies.tabular import TabularPolicy
    >>> policy = TabularPolicy(torch.tensor([[1.0, -4.0]]))
    >>> newton_step(policy.logits.square().sum(), policy).tolist()
    [0.5, -2.0]
    """
    wanted = parameters(policy)
    found = torch.autograd.grad(value, wanted, create_graph=True)
    slope = torch.cat([part.flatten() for part in found])
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(entry, wanted, retain_graph=True)]) for entry in slope
    ]
    # A constant added to all logits of a prompt changes nothing: the pseudoinverse leaves that direction alone.
    inverse: Tensor = torch.linalg.pinv(torch.stack(rows), hermitian=True, rtol=1e-13)
    step = inverse @ slope.detach()
    largest = step.abs().max().item()
    return step if largest <= longest else step * (longest / largest)


def _check(method: Method) -> None:
    self_labeled = any(route.is_self_labeled or route.labels == "sampled" for route in method.active_routes)
    if method.offline_weight or method.addends or self_labeled:
        raise SpecError(
            f"{method.name}: Newton steps cover routes with fixed labels alone, but it has offline pairs, addends, "
            "self-labeled routes or sampled labels; train it along the expected gradient (direction=None)"
        )
