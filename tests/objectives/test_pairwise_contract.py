"""What every pairwise objective promises, whatever its formula."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_variants_contract import CLAIMS
from torch import Tensor

from setsail.core import stream
from setsail.methods import CATALOGUE
from setsail.objectives import SURROGATES, LogProbs, PairwiseObjective, aot, aot_unpaired, dpo, ipo, robust, slic

BETA = 0.3
PLAIN: dict[str, PairwiseObjective] = {
    "dpo": partial(dpo, beta=BETA),
    "dpo-smoothed": partial(dpo, beta=BETA, label_smoothing=0.1),
    "ipo": partial(ipo, beta=BETA),
    "ipo-per-token": partial(ipo, beta=BETA, length_normalize=True),
    "slic": partial(slic, beta=BETA),
}
ROBUST: dict[str, PairwiseObjective] = {f"robust-{name}": robust(loss, 0.15) for name, loss in PLAIN.items()}
OBJECTIVES = PLAIN | ROBUST
AT_REFERENCE = {"dpo": 0.6931471805599453, "ipo": 1 / (4 * BETA**2), "slic": 1.0}

each_objective = pytest.mark.parametrize("name", OBJECTIVES)
each_plain = pytest.mark.parametrize("name", PLAIN)


def _record(pairs: int = 8, requires_grad: bool = False) -> LogProbs:
    numbers = torch.from_numpy(stream(0, "objectives").normal(size=(4, 64)))[:, :pairs] * 4 - 20
    lengths = torch.from_numpy(stream(0, "lengths").integers(1, 9, size=(2, 64)))[:, :pairs]
    first, second = (part.clone().requires_grad_(requires_grad) for part in numbers[:2])
    return LogProbs(first, second, numbers[2], numbers[3], lengths[0], lengths[1])


def _preference(pairs: int = 8) -> Tensor:
    return torch.from_numpy(stream(0, "preferences").random(64))[:pairs]


def test_every_objective_of_the_catalogue_is_under_contract() -> None:
    """Pairwise ones here, among the variants, or as a function of the batch; others have tests of their own."""
    contracts = (*PLAIN.values(), *(claim.objective for claim in CLAIMS.values()))
    covered = {getattr(objective, "func", objective) for objective in contracts} | {aot, aot_unpaired}
    for method in CATALOGUE.values():
        of_pairs = not method.reads_values and method.objective not in SURROGATES
        assert method.objective in covered if of_pairs else _has_tests_of_its_own(method.objective)


def _has_tests_of_its_own(objective: Callable[..., Tensor]) -> bool:
    """Whether a test of this folder takes it from the public objectives."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("test_*.py"))
    imports = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return any(
        alias.name == objective.__name__
        for each in imports
        if each.module == "setsail.objectives"
        for alias in each.names
    )


def test_an_objective_that_nobody_tests_is_noticed() -> None:
    def untested(logps: LogProbs, values: Tensor) -> Tensor:
        return values

    assert not _has_tests_of_its_own(untested)


@each_objective
def test_one_loss_a_pair(name: str) -> None:
    loss = OBJECTIVES[name](_record(), _preference())
    assert loss.shape == (8,)
    assert loss.dtype == torch.float64


@each_objective
def test_swapping_the_pair_together_with_its_label_changes_nothing(name: str) -> None:
    logps, p = _record(), _preference()
    swapped = LogProbs(
        logps.policy_second,
        logps.policy_first,
        logps.reference_second,
        logps.reference_first,
        logps.length_second,
        logps.length_first,
    )
    torch.testing.assert_close(OBJECTIVES[name](swapped, 1 - p), OBJECTIVES[name](logps, p), atol=1e-12, rtol=1e-12)


@each_objective
def test_a_constant_on_both_policy_log_probs_changes_nothing(name: str) -> None:
    """The partition function of the implicit reward cancels (per token: with answers of one length)."""
    logps, p = _record(), _preference()
    logps = replace(logps, length_second=logps.length_first)
    shifted = replace(logps, policy_first=logps.policy_first + 5, policy_second=logps.policy_second + 5)
    torch.testing.assert_close(OBJECTIVES[name](shifted, p), OBJECTIVES[name](logps, p), atol=1e-11, rtol=1e-11)


@each_objective
def test_policy_and_reference_enter_as_a_ratio(name: str) -> None:
    logps, p = _record(), _preference()
    shifted = replace(logps, policy_first=logps.policy_first + 2, reference_first=logps.reference_first + 2)
    torch.testing.assert_close(OBJECTIVES[name](shifted, p), OBJECTIVES[name](logps, p), atol=1e-11, rtol=1e-11)


@each_objective
@pytest.mark.parametrize("through", ["policy_first", "policy_second", "p"])
def test_the_gradient_is_that_of_finite_differences(name: str, through: str) -> None:
    logps, p = _record(requires_grad=True), _preference().requires_grad_()
    leaf = p if through == "p" else getattr(logps, through)
    (found,) = torch.autograd.grad(OBJECTIVES[name](logps, p).sum(), leaf)
    step = 1e-6

    def value(offset: float) -> Tensor:
        moved = (leaf + offset).detach()
        if through == "p":
            return OBJECTIVES[name](logps, moved).detach()
        return OBJECTIVES[name](replace(logps, **{through: moved}), p.detach()).detach()

    torch.testing.assert_close(found, (value(step) - value(-step)) / (2 * step), atol=1e-7, rtol=1e-6)


@each_plain
def test_a_soft_label_is_the_average_of_the_hard_ones(name: str) -> None:
    logps, p = _record(), _preference()
    first, second = (PLAIN[name](logps, label) for label in (torch.ones_like(p), torch.zeros_like(p)))
    torch.testing.assert_close(PLAIN[name](logps, p), p * first + (1 - p) * second, atol=1e-12, rtol=1e-12)


@each_objective
def test_no_label_means_that_the_first_is_preferred(name: str) -> None:
    logps = _record()
    given = OBJECTIVES[name](logps, torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(OBJECTIVES[name](logps, None), given, atol=1e-12, rtol=1e-12)


@each_objective
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_where_policy_and_reference_agree_the_value_is_a_known_constant(name: str, p: float) -> None:
    logps = _record()
    same = replace(logps, policy_first=logps.reference_first, policy_second=logps.reference_second)
    family = next(part for part in ("dpo", "ipo", "slic") if part in name)
    loss = OBJECTIVES[name](same, torch.full((8,), p, dtype=torch.float64))
    torch.testing.assert_close(loss, torch.full_like(loss, AT_REFERENCE[family]), atol=1e-12, rtol=1e-12)


@each_plain
@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0])
def test_robust_is_the_largest_loss_on_a_grid_of_labels(name: str, radius: float) -> None:
    logps, p = _record(), _preference()
    grid = torch.linspace(-radius, radius, 201, dtype=torch.float64)
    losses = torch.stack([PLAIN[name](logps, (p + step).clamp(0, 1)) for step in grid])
    torch.testing.assert_close(robust(PLAIN[name], radius)(logps, p), losses.amax(0), atol=1e-9, rtol=0)


@each_objective
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    logps, p = _record(), _preference()
    whole = OBJECTIVES[name](logps, p)
    for cuts in ((0, 4, 8), tuple(range(9))):
        parts = []
        for start, stop in pairwise(cuts):
            index = torch.arange(start, stop)
            parts.append(OBJECTIVES[name](logps.select(index), p[index]))
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12, rtol=1e-12)


@each_objective
@pytest.mark.parametrize(
    ("p", "message"),
    [
        (torch.full((8,), 1.05), r"p must lie in \[0, 1\], got 1.0"),
        (torch.full((8,), -0.05), r"p must lie in \[0, 1\], got -0.0"),
        (torch.full((8,), float("nan")), "drop pairs whose preference is missing"),
        (torch.full((8, 1), 0.5), r"shape \(8,\), got \(8, 1\)"),
        (torch.full((7,), 0.5), r"shape \(8,\), got \(7,\)"),
        (torch.ones(8, dtype=torch.bool), "p must be a floating tensor of probabilities, got torch.bool"),
    ],
    ids=["above", "below", "nan", "column", "short", "bool"],
)
def test_a_preference_that_is_no_probability_is_refused(name: str, p: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](_record(), p)


@pytest.mark.parametrize("objective", [dpo, ipo, slic])
@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
def test_beta_must_be_positive(objective: PairwiseObjective, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got"):
        objective(_record(), None, beta=beta)  # type: ignore[call-arg]


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_label_smoothing_stops_before_a_label_says_nothing(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 0.5\), got .* says nothing"):
        dpo(_record(), label_smoothing=smoothing)


@pytest.mark.parametrize("radius", [-0.1, 1.1])
def test_the_robust_radius_is_a_label_error(radius: float) -> None:
    with pytest.raises(ValueError, match=r"a label error in \[0, 1\], got"):
        robust(dpo, radius)


def test_length_normalization_needs_lengths() -> None:
    bare = replace(_record(), length_first=None, length_second=None)
    with pytest.raises(ValueError, match="needs length_first and length_second in the record; pass both"):
        ipo(bare, length_normalize=True)
