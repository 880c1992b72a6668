"""Gradients three ways: enumerated from a surrogate, by finite differences, and by sampling with standard errors.

All gradients are flat vectors, the policy's parameters one after the other, shape ``(parameters,)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from setsail.core import stream
from setsail.lab.pairs import WeightedPairs
from setsail.objectives import LogProbs, draw_preference
from setsail.policies.tabular import EnumerablePolicy

Surrogate = Callable[[LogProbs, Tensor], Tensor]
"""``surrogate(logps, p) -> value of each pair``; only its gradient has a meaning. ``p`` is hard when labels are."""

Labels = Literal["averaged", "sampled"]


def parameters(policy: nn.Module) -> list[nn.Parameter]:
    """The parameters that take gradient."""
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]


def along(flat: Tensor, policy: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter that takes gradient with its part of a flat vector, in the parameter's shape."""
    wanted = parameters(policy)
    parts = torch.split(flat, [parameter.numel() for parameter in wanted])
    for parameter, part in zip(wanted, parts, strict=True):
        yield parameter, part.view_as(parameter)


def gradient(value: Tensor, policy: nn.Module) -> Tensor:
    """``d value / d parameters`` by autograd, flat; zeros where the value does not depend on the policy."""
    wanted = parameters(policy)
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in wanted])
    found = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


@torch.no_grad()
def finite_difference(function: Callable[[], Tensor], params: Iterable[nn.Parameter], epsilon: float = 1e-5) -> Tensor:
    """Central differences ``(f(theta + e) - f(theta - e)) / 2e``, one coordinate at a time, flat.

    Args:
        function: reads the parameters and returns a scalar; called twice a coordinate.
        params: changed in place and restored.
        epsilon: step; in float64 the error is about ``epsilon^2 + 1e-16 / epsilon``.
    """
    slopes = []
    for parameter in params:
        flat = parameter.data.view(-1)
        for index in range(flat.numel()):
            kept = flat[index].item()
            flat[index] = kept + epsilon
            above = function().item()
            flat[index] = kept - epsilon
            below = function().item()
            flat[index] = kept
            slopes.append((above - below) / (2 * epsilon))
    return torch.tensor(slopes, dtype=torch.float64)


def expected_gradient(
    policy: EnumerablePolicy,
    reference: EnumerablePolicy,
    pairs: WeightedPairs,
    surrogate: Surrogate,
    labels: Labels = "sampled",
) -> Tensor:
    """``E_pairs E_label [grad surrogate]`` exactly: pairs and labels are enumerated, as training would draw them.

    The probabilities of pairs and labels are constants here: whatever a sampler's distribution contributes to the
    gradient of an objective must come from the surrogate, as it must in training.

    Args:
        policy: whose gradient is taken.
        reference: the reference policy.
        pairs: the distribution of pairs, with their preferences (see :meth:`WeightedPairs.self_labeled`).
        surrogate: maps the log-probs and the label of each pair to a value of each pair.
        labels: enumerate hard labels with their probabilities, or hand over the probability itself.

    Returns:
        Shape ``(parameters,)``.

    Raises:
        ValueError: the pairs carry no preference.
    """
    logps, p = pairs.log_probs(policy, reference), _preference(pairs)
    if labels == "averaged":
        value = surrogate(logps, p)
    else:
        value = p * surrogate(logps, torch.ones_like(p)) + (1 - p) * surrogate(logps, torch.zeros_like(p))
    return gradient((pairs.weight.detach() * value).sum(), policy)


def _preference(pairs: WeightedPairs) -> Tensor:
    if pairs.p is None:
        raise ValueError(
            "these pairs carry no preference; use pairs.labeled(p) or pairs.self_labeled(policy, reference)"
        )
    return pairs.p.detach()


def scores(policy: EnumerablePolicy) -> Tensor:
    """``s(y) = grad log pi(y|x)`` of every response, shape ``(prompts, responses, parameters)``."""
    table = policy.log_probs()
    wanted = parameters(policy)
    rows = []
    for entry in table.flatten():
        found = torch.autograd.grad(entry, wanted, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows).view(*table.shape, -1)


def per_pair_gradients(
    policy: EnumerablePolicy, reference: EnumerablePolicy, pairs: WeightedPairs, surrogate: Surrogate, p: Tensor
) -> Tensor:
    """The gradient of each pair's surrogate, shape ``(pairs, parameters)``.

    A surrogate reads the policy only through the two log-probs, so the gradient of a pair is
    ``(d value / d log pi(y1)) s(y1) + (d value / d log pi(y2)) s(y2)``.
    """
    logps = pairs.log_probs(policy, reference)
    first, second = (part.detach().requires_grad_() for part in (logps.policy_first, logps.policy_second))
    value = surrogate(replace(logps, policy_first=first, policy_second=second), p)
    slope_first, slope_second = torch.autograd.grad(
        value.sum(), (first, second), allow_unused=True, materialize_grads=True
    )
    table = scores(policy)
    return (
        slope_first.unsqueeze(-1) * table[pairs.prompt, pairs.first]
        + slope_second.unsqueeze(-1) * table[pairs.prompt, pairs.second]
    )


def gradient_variance(
    policy: EnumerablePolicy,
    reference: EnumerablePolicy,
    pairs: WeightedPairs,
    surrogate: Surrogate,
    labels: Labels = "sampled",
) -> float:
    """``E ||g - E g||^2`` of one draw's gradient g, exactly: the sum of the variances of all coordinates."""
    p, weight = _preference(pairs), pairs.weight.detach()
    if labels == "averaged":
        outcomes = [(weight, p)]
    else:
        outcomes = [(weight * p, torch.ones_like(p)), (weight * (1 - p), torch.zeros_like(p))]
    draws = [(chance, per_pair_gradients(policy, reference, pairs, surrogate, label)) for chance, label in outcomes]
    mean = sum((chance @ each for chance, each in draws), torch.zeros(()))
    return float(sum((chance * each.square().sum(-1)).sum() for chance, each in draws) - mean.square().sum())


@dataclass(frozen=True, slots=True)
class GradientEstimate:
    """A sampled gradient: mean and standard error of each coordinate, shape ``(parameters,)``."""

    mean: Tensor
    standard_error: Tensor

    def z_scores(self, exact: Tensor) -> Tensor:
        """Distance to ``exact`` in standard errors; coordinates that never vary must agree to 1e-12."""
        distance = (self.mean - exact).abs()
        return torch.where(distance < 1e-12, 0.0, distance / self.standard_error)


def monte_carlo_gradient(
    policy: EnumerablePolicy,
    reference: EnumerablePolicy,
    surrogate: Surrogate,
    *,
    preference: Tensor | None = None,
    labels: Labels = "sampled",
    draws: int = 60_000,
    batch: int = 1,
    beta: float = 0.1,
    seed: int = 0,
) -> GradientEstimate:
    """Estimate the gradient of a surrogate from pairs drawn from the policy, as training does.

    Args:
        surrogate: gets the log-probs and labels of all ``draws`` pairs; consecutive runs of ``batch`` pairs are
            one batch (a surrogate with a batch baseline reshapes to ``(-1, batch)``).
        preference: ``P[x, i, j]``; None = the policy's own preference at ``beta``.
        labels: draw hard labels, or hand over the probability.
        draws: number of pairs, a multiple of ``batch``.
        seed: names the random stream.

    Returns:
        Mean over pairs, and its standard error from the spread between batches, which are independent.
    """
    if draws % batch:
        raise ValueError(f"the number of draws must be a multiple of the batch, got {draws} and {batch}")
    numbers = torch.from_numpy(stream(seed, "lab").random((draws, 4)))
    prompt = (numbers[:, 0] * policy.log_probs().shape[0]).long()
    first, second = policy.sample(prompt, numbers[:, 1:3]).unbind(-1)
    pairs = WeightedPairs(prompt, first, second, torch.full((draws,), 1 / draws, dtype=torch.float64))
    if preference is None:
        pairs = pairs.self_labeled(policy, reference, beta)
    else:
        pairs = pairs.labeled(preference[prompt, first, second])
    p = _preference(pairs)
    label = draw_preference(p, numbers[:, 3]) if labels == "sampled" else p
    each = per_pair_gradients(policy, reference, pairs, surrogate, label)
    means = each.view(draws // batch, batch, -1).mean(1)
    return GradientEstimate(means.mean(0), means.std(0) / len(means) ** 0.5)
