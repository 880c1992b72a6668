"""Acceptance test 25: the forward KL, its estimator, its curvature (arXiv 2606.31524)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from setsail import lab
from setsail.core import stream
from setsail.lab import TabularWorld
from setsail.objectives import forward_kl_full, forward_kl_sampled
from setsail.policies.tabular import EnumerablePolicy, LogLinearPolicy, TabularPolicy, TabularTokenPolicy

World = tuple[EnumerablePolicy, TabularWorld]


def _enumerated(policy: EnumerablePolicy, reference: EnumerablePolicy, sampler: EnumerablePolicy) -> Tensor:
    """``E_{y ~ sampler}[estimator]``, mean over prompts, the samples held fixed."""
    chance = sampler.log_probs().detach().exp()
    each = forward_kl_sampled(policy.log_probs().flatten(), reference.log_probs().flatten()).view_as(chance)
    return (chance * each).sum(-1).mean()


def test_acceptance_25_on_reference_samples_value_and_gradient_are_the_kl(world: World) -> None:
    policy, tabular = world
    value = _enumerated(policy, tabular.reference, tabular.reference)
    assert value.item() == pytest.approx(lab.forward_kl(policy, tabular.reference).item(), rel=1e-12)
    wanted = lab.finite_difference(lambda: lab.forward_kl(policy, tabular.reference), lab.parameters(policy))
    found = lab.gradient(value, policy)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-6


def test_acceptance_25_on_policy_samples_the_estimator_has_no_expected_gradient(world: World) -> None:
    """Which is why the docs demand completions of the reference."""
    policy, tabular = world
    assert lab.gradient(_enumerated(policy, tabular.reference, policy), policy).abs().max().item() < 1e-12
    assert lab.gradient(lab.forward_kl(policy, tabular.reference), policy).abs().max().item() > 1e-3


def _log_linear() -> tuple[LogLinearPolicy, EnumerablePolicy]:
    numbers = stream(0, "lab", "log-linear")
    features = torch.from_numpy(numbers.normal(size=(2, 6, 3)))
    weights, logits = torch.from_numpy(numbers.normal(size=3)), torch.from_numpy(numbers.normal(size=(2, 6)))
    return LogLinearPolicy(features, weights), TabularPolicy(logits).frozen()


def test_acceptance_25_the_curvature_of_a_log_linear_policy_is_the_fisher_matrix() -> None:
    policy, reference = _log_linear()
    frozen = reference.log_probs()

    def kl(weights: Tensor) -> Tensor:
        table = functional_call(policy, {"weights": weights}, ())
        return (frozen.exp() * (frozen - table)).sum(-1).mean()

    hessian = torch.autograd.functional.hessian(kl, policy.weights.detach())
    chance = policy.log_probs().detach().exp().unsqueeze(-1)
    centered = policy.features - (chance * policy.features).sum(1, keepdim=True)
    fisher = torch.einsum("nrf,nrg->fg", chance * centered, centered) / len(centered)
    torch.testing.assert_close(hessian, fisher, atol=1e-10, rtol=0)
    assert torch.linalg.eigvalsh(hessian).min().item() > 0


def test_the_reverse_kl_is_not_convex_in_a_log_linear_policy() -> None:
    """The other direction has negative curvature somewhere, so the direction of the penalty matters."""
    policy, reference = _log_linear()
    frozen = reference.log_probs()

    def kl(weights: Tensor) -> Tensor:
        table = functional_call(policy, {"weights": weights}, ())
        return (table.exp() * (table - frozen)).sum(-1).mean()

    numbers = stream(0, "lab", "curvature")
    points = [torch.from_numpy(numbers.normal(size=3)) * 2 for _ in range(20)]
    lowest = min(torch.linalg.eigvalsh(torch.autograd.functional.hessian(kl, point)).min().item() for point in points)
    assert lowest < -1e-2


def _reach(reference: TabularTokenPolicy) -> Tensor:
    """Probability that the reference visits each prefix, shape ``(prompts, prefixes)``."""
    table = reference.log_probs().detach().exp()
    columns = [
        table[:, [index for index, sequence in enumerate(reference.sequences()) if _visits(sequence, prefix)]].sum(-1)
        for prefix in reference.prefixes()
    ]
    return torch.stack(columns, -1)


def _visits(sequence: tuple[int, ...], prefix: tuple[int, ...]) -> bool:
    return len(sequence) > len(prefix) and sequence[: len(prefix)] == prefix


def test_acceptance_25_full_vocabulary_kl_is_never_negative_and_adds_up_to_the_sequence_kl() -> None:
    policy, tabular = lab.token_world()
    reference = tabular.reference
    assert isinstance(reference, TabularTokenPolicy)
    each = forward_kl_full(policy.next_token_log_probs(), reference.next_token_log_probs())
    assert each.min().item() >= 0
    total = (_reach(reference) * each).sum(-1).mean()
    assert total.item() == pytest.approx(lab.forward_kl(policy, reference).item(), rel=1e-12)
    wanted = lab.finite_difference(lambda: lab.forward_kl(policy, reference), lab.parameters(policy))
    found = lab.gradient(total, policy)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-6
