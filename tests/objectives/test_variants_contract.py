"""What every further pairwise objective promises, and which invariances each one claims, or does not have."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import (
    LogProbs,
    PairwiseObjective,
    anchored,
    apo_down,
    apo_zero,
    asft,
    cpl,
    cpo,
    discopop,
    divergences,
    dpo_gamma,
    dpo_positive,
    exo_pair,
    f_dpo,
    length_normalized_dpo,
    length_regularized_dpo,
    margin_curves,
    nca_pair,
    noisy_labels,
    orpo,
    reference_free,
    robust,
    robust_dpo,
    shaped_margins,
    simpo,
    slic_hf,
    sppo_hard,
)

MODULES = (anchored, divergences, margin_curves, noisy_labels, reference_free, shaped_margins)
PAIRS = 8


class Claim(NamedTuple):
    """An objective and what leaves it unchanged.

    Attributes:
        shift: a constant on both policy log-probs (per token: with completions of one length).
        ratio: a constant on the policy's and the reference's log-prob of one completion.
        reference: anything done to the reference.
    """

    objective: PairwiseObjective
    shift: bool = False
    ratio: bool = False
    reference: bool = False


CLAIMS = {
    "apo_down": Claim(partial(apo_down, beta=0.3), ratio=True),
    "apo_zero": Claim(partial(apo_zero, beta=0.3), ratio=True),
    "asft": Claim(asft, reference=True),
    "asft-tempered": Claim(partial(asft, beta=0.4, odds_scale=0.5), reference=True),
    "cpl": Claim(cpl, ratio=True),
    "cpl-unbiased": Claim(partial(cpl, bias=1.0), shift=True, ratio=True),
    "cpl-reference-free": Claim(partial(cpl, bias=0.5, reference_free=True), reference=True),
    "cpo": Claim(partial(cpo, beta=0.3), shift=True, reference=True),
    "discopop": Claim(discopop, shift=True, ratio=True),
    "dpo_gamma": Claim(partial(dpo_gamma, reference_weight=0.4), shift=True),
    "dpo_positive": Claim(partial(dpo_positive, penalty=3.0), ratio=True),
    "exo_pair": Claim(partial(exo_pair, label_smoothing=0.01), shift=True, ratio=True),
    "f_dpo-reverse": Claim(partial(f_dpo, divergence="reverse_kl"), shift=True, ratio=True),
    "f_dpo-forward": Claim(partial(f_dpo, divergence="forward_kl"), ratio=True),
    "f_dpo-jensen-shannon": Claim(partial(f_dpo, divergence="jensen_shannon"), ratio=True),
    "f_dpo-alpha": Claim(partial(f_dpo, divergence="alpha", alpha=0.3), ratio=True),
    "length_normalized_dpo": Claim(length_normalized_dpo, shift=True, ratio=True),
    "length_regularized_dpo": Claim(length_regularized_dpo, shift=True, ratio=True),
    "nca_pair": Claim(partial(nca_pair, beta=0.3), ratio=True),
    "orpo": Claim(orpo, reference=True),
    "robust_dpo": Claim(robust_dpo, shift=True, ratio=True),
    "simpo": Claim(simpo, shift=True, reference=True),
    "slic_hf": Claim(slic_hf, shift=True, reference=True),
    "sppo_hard": Claim(partial(sppo_hard, beta=0.2), ratio=True),
}

each_objective = pytest.mark.parametrize("name", CLAIMS)


def _record(requires_grad: bool = False) -> LogProbs:
    numbers = torch.from_numpy(stream(0, "variants").normal(size=(4, PAIRS))) * 1.5 - 9
    lengths = torch.from_numpy(stream(0, "variant lengths").integers(2, 9, size=(2, PAIRS)))
    first, second = (part.clone().requires_grad_(requires_grad) for part in numbers[:2])
    return LogProbs(first, second, numbers[2], numbers[3], lengths[0], lengths[1])


def _preference() -> Tensor:
    return torch.from_numpy(stream(0, "variant preferences").random(PAIRS))


def test_every_pairwise_objective_of_these_modules_is_under_contract() -> None:
    public = {
        function
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and inspect.signature(function).parameters["logps"].annotation == "LogProbs"
    }
    covered = {getattr(claim.objective, "func", claim.objective) for claim in CLAIMS.values()}
    assert public == covered


@each_objective
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_finite_loss_a_pair_of_the_dtype_of_the_log_probs(name: str, dtype: torch.dtype) -> None:
    record = _record()
    parts = (record.policy_first, record.policy_second, record.reference_first, record.reference_second)
    record = LogProbs(*(part.to(dtype) for part in parts), record.length_first, record.length_second)
    loss = CLAIMS[name].objective(record, _preference().to(dtype))
    assert loss.shape == (PAIRS,)
    assert loss.dtype == dtype
    assert bool(loss.isfinite().all())


@each_objective
def test_swapping_the_pair_together_with_its_label_changes_nothing(name: str) -> None:
    logps, p, objective = _record(), _preference(), CLAIMS[name].objective
    torch.testing.assert_close(objective(logps.swapped(), 1 - p), objective(logps, p), atol=1e-12, rtol=1e-12)


@each_objective
def test_swapping_the_pair_alone_changes_the_loss(name: str) -> None:
    logps, objective = _record(), CLAIMS[name].objective
    assert bool(((objective(logps.swapped(), None) - objective(logps, None)).abs() > 1e-6).all())


@each_objective
def test_a_soft_label_is_the_average_of_the_hard_ones(name: str) -> None:
    logps, p, objective = _record(), _preference(), CLAIMS[name].objective
    first, second = (objective(logps, label) for label in (torch.ones_like(p), torch.zeros_like(p)))
    torch.testing.assert_close(objective(logps, p), p * first + (1 - p) * second, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(objective(logps, None), first, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(objective(logps.swapped(), None), second, atol=1e-12, rtol=1e-12)


@each_objective
@pytest.mark.parametrize("through", ["policy_first", "policy_second", "p"])
def test_the_gradient_is_that_of_finite_differences(name: str, through: str) -> None:
    logps, p, objective = _record(requires_grad=True), _preference().requires_grad_(), CLAIMS[name].objective
    leaf = p if through == "p" else getattr(logps, through)
    (found,) = torch.autograd.grad(objective(logps, p).sum(), leaf)
    step = 1e-6

    def value(offset: float) -> Tensor:
        moved = (leaf + offset).detach()
        if through == "p":
            return objective(logps, moved).detach()
        return objective(replace(logps, **{through: moved}), p.detach()).detach()

    torch.testing.assert_close(found, (value(step) - value(-step)) / (2 * step), atol=1e-7, rtol=1e-6)


def _is_unchanged(objective: PairwiseObjective, logps: LogProbs, changed: LogProbs) -> bool:
    p = _preference()
    return torch.allclose(objective(changed, p), objective(logps, p), atol=1e-10, rtol=1e-10)


@each_objective
def test_a_constant_on_both_policy_log_probs_cancels_where_claimed_and_only_there(name: str) -> None:
    claim, logps = CLAIMS[name], _record()
    logps = replace(logps, length_second=logps.length_first)
    shifted = replace(logps, policy_first=logps.policy_first + 0.7, policy_second=logps.policy_second + 0.7)
    assert _is_unchanged(claim.objective, logps, shifted) is claim.shift


@each_objective
def test_policy_and_reference_enter_as_a_ratio_where_claimed_and_only_there(name: str) -> None:
    claim, logps = CLAIMS[name], _record()
    shifted = replace(logps, policy_first=logps.policy_first + 0.7, reference_first=logps.reference_first + 0.7)
    assert _is_unchanged(claim.objective, logps, shifted) is claim.ratio


@each_objective
def test_the_reference_is_not_read_where_claimed_and_only_there(name: str) -> None:
    claim, logps = CLAIMS[name], _record()
    changed = replace(logps, reference_first=logps.reference_first + 0.7)
    assert _is_unchanged(claim.objective, logps, changed) is claim.reference


@each_objective
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    logps, p, objective = _record(), _preference(), CLAIMS[name].objective
    for cuts in ((0, 3, PAIRS), tuple(range(PAIRS + 1))):
        index = [torch.arange(start, stop) for start, stop in pairwise(cuts)]
        parts = [objective(logps.select(part), p[part]) for part in index]
        torch.testing.assert_close(torch.cat(parts), objective(logps, p), atol=1e-12, rtol=1e-12)


@each_objective
def test_the_worst_case_over_labels_stays_what_it_is_on_a_grid(name: str) -> None:
    logps, p, objective = _record(), _preference(), CLAIMS[name].objective
    grid = torch.linspace(-0.15, 0.15, 61, dtype=torch.float64)
    worst = torch.stack([objective(logps, (p + step).clamp(0, 1)) for step in grid]).amax(0)
    torch.testing.assert_close(robust(objective, 0.15)(logps, p), worst, atol=1e-9, rtol=1e-12)


@each_objective
@pytest.mark.parametrize("margin", [-3e4, 3e4])
def test_a_pair_far_off_has_a_finite_loss_and_gradient_in_float32(name: str, margin: float) -> None:
    policy = [torch.tensor([value - 2e5], requires_grad=True) for value in (margin, 0.0)]
    reference, lengths = torch.tensor([-2e5]), torch.tensor([500])
    loss = CLAIMS[name].objective(LogProbs(*policy, reference, reference, lengths, lengths), torch.tensor([0.8]))
    slopes = torch.autograd.grad(loss.sum(), policy, allow_unused=True)
    assert bool(loss.isfinite().all())
    assert all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)


@each_objective
@pytest.mark.parametrize(
    "p", [torch.full((PAIRS,), 1.05), torch.full((PAIRS, 1), 0.5), torch.full((PAIRS,), torch.nan)]
)
def test_a_preference_that_is_no_probability_is_refused(name: str, p: Tensor) -> None:
    with pytest.raises(ValueError, match=r"p must (lie in \[0, 1\]|hold one probability a pair)"):
        CLAIMS[name].objective(_record(), p)


@each_objective
@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan")])
def test_beta_must_be_positive(name: str, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got"):
        CLAIMS[name].objective(_record(), None, beta=beta)  # type: ignore[call-arg]


@pytest.mark.parametrize("objective", [simpo, orpo, asft, length_normalized_dpo, length_regularized_dpo])
def test_lengths_are_asked_for_where_they_are_needed(objective: PairwiseObjective) -> None:
    bare = replace(_record(), length_first=None, length_second=None)
    with pytest.raises(ValueError, match="needs length_first and length_second in the record; pass both"):
        objective(bare, None)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (partial(asft, odds_scale=0.0), "odds_scale must be positive, got 0.0"),
        (partial(cpl, bias=0.0), r"bias must lie in \(0, 1\], got 0.0"),
        (partial(cpl, bias=1.1), r"bias must lie in \(0, 1\], got 1.1"),
        (partial(discopop, tau=0.0), "tau must be positive, got 0.0"),
        (partial(dpo_gamma, reference_weight=-0.1), "reference_weight must be a number >= 0"),
        (partial(dpo_positive, penalty=-1.0), "penalty must be 0 .plain DPO. or a positive number, got -1.0"),
        (partial(exo_pair, label_smoothing=0.0), r"label_smoothing must lie in \(0, 0.5\), got 0.0.*infinite"),
        (partial(exo_pair, label_smoothing=0.5), r"label_smoothing must lie in \(0, 0.5\), got 0.5"),
        (partial(f_dpo, divergence="alpha", alpha=0.0), "its limits are divergence='reverse_kl'"),
        (partial(f_dpo, divergence="alpha", alpha=1.0), "strictly between 0 and 1, got 1.0"),
        (partial(f_dpo, divergence="js"), "one of reverse_kl, forward_kl, jensen_shannon, alpha, got 'js'"),
        (partial(length_regularized_dpo, length_weight=-0.2), "a negative one would reward length"),
        (partial(robust_dpo, label_smoothing=0.5), r"label_smoothing must lie in \[0, 0.5\), got 0.5"),
        (partial(simpo, gamma=-0.5), "gamma is a margin of 0 or more, got -0.5"),
        (partial(slic_hf, delta=0.0), "delta must be positive, got 0.0"),
    ],
)
def test_parameters_without_a_meaning_are_refused(objective: PairwiseObjective, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective(_record(), None)
