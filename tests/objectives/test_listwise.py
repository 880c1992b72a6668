"""Listwise objectives: their published numbers, what they are at K = 2, and what all of them promise."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from setsail.core import stream
from setsail.objectives import (
    GroupLogProbs,
    GroupObjective,
    dpo,
    lipo,
    list_mle,
    list_net,
    plackett_luce_dpo,
    pro,
    rank_net,
    robust,
    robust_listwise,
    rrhf,
)

BETA, RADIUS = 0.3, 0.15
REFERENCED: dict[str, GroupObjective] = {
    "plackett-luce": partial(plackett_luce_dpo, beta=BETA),
    "robust": partial(robust_listwise, beta=BETA, radius=RADIUS),
    "rank-net": partial(rank_net, beta=BETA),
    "lipo": partial(lipo, beta=BETA),
    "list-net": partial(list_net, beta=BETA),
}
REFERENCE_FREE: dict[str, GroupObjective] = {"pro": pro, "rrhf": rrhf}
OBJECTIVES = REFERENCED | REFERENCE_FREE
ORDER_ONLY = ("plackett-luce", "robust", "rank-net", "rrhf")
SHIFT_INVARIANT = (*ORDER_ONLY, "list-net", "pro")
TIES_SAY_NOTHING = ("plackett-luce", "rank-net", "lipo", "pro", "rrhf")

each_objective = pytest.mark.parametrize("name", OBJECTIVES)


def row(*numbers: float) -> Tensor:
    """One group, float64."""
    return torch.tensor([numbers], dtype=torch.float64)


def _record(groups: int = 6, size: int = 4) -> GroupLogProbs:
    numbers = torch.from_numpy(stream(0, "listwise").normal(size=(2, groups, size))) * 4 - 20
    length = torch.from_numpy(stream(0, "lengths").integers(1, 9, size=(groups, size)))
    return GroupLogProbs(numbers[0].clone().requires_grad_(), numbers[1], length)


def _values(groups: int = 6, size: int = 4) -> Tensor:
    return torch.from_numpy(stream(0, "values").random((groups, size)))


def _gradient(objective: GroupObjective, logps: GroupLogProbs, values: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(objective(logps, values).sum(), logps.policy)
    return found


# Published and derived numbers.


def test_pro_with_its_likelihood_term_has_the_known_loss_and_gradient() -> None:
    policy = row(-20, -30, -24).requires_grad_()
    record = GroupLogProbs(policy, torch.zeros_like(policy), torch.tensor([[10, 12, 8]]))
    ranking = pro(record, row(2, 1, -1))
    assert ranking.item() == pytest.approx(3.844470, abs=1e-6)
    likelihood = -0.05 * (3 - 1) ** 2 * policy[:, 0]
    assert likelihood.item() == pytest.approx(4.0)
    (slope,) = torch.autograd.grad((ranking + likelihood).sum(), policy)
    assert slope[0].tolist() == pytest.approx([-0.4912, 0.0359, 0.0678], abs=5e-5)


def test_pro_of_two_is_a_logistic_loss_scaled_by_the_reward_gap() -> None:
    record = GroupLogProbs(row(-2, -2.5), row(0, 0), torch.ones(1, 2))
    assert pro(record, row(0.5, -1)).item() == pytest.approx(0.386871, abs=1e-6)
    assert pro(record, row(-1, 0.5)).item() == pytest.approx(math.log1p(math.exp(1.5 * 0.5)))


def test_pro_masks_a_tie_out_of_the_denominators() -> None:
    record = GroupLogProbs(row(-1.0, -2.0, -1.5), row(0, 0, 0), torch.ones(1, 3))
    versus_worst = [math.log1p(math.exp(2 * (-1.5 - own))) for own in (-1.0, -2.0)]
    assert pro(record, row(1, 1, -1)).item() == pytest.approx(sum(versus_worst))


def test_the_framework_of_lipo_has_the_known_losses_and_gradient() -> None:
    policy = row(-10, -12, -9, -11).requires_grad_()
    record, values = GroupLogProbs(policy, row(-10.5, -11, -10, -11.5)), row(0.9, 0.2, 0.5, 0.4)
    assert lipo(record, values).item() == pytest.approx(0.575630, abs=1e-6)
    assert lipo(record, values, discount_base=2).item() == pytest.approx(0.398996, abs=1e-6)
    assert list_mle(record, values, beta=0.05).item() == pytest.approx(3.088681, abs=1e-6)
    assert rank_net(record, values, beta=0.05).item() == pytest.approx(4.036694, abs=1e-6)
    slope = _gradient(lipo, record, values)
    assert slope[0].tolist() == pytest.approx([-0.013658, 0.010578, -0.000776, 0.003856], abs=1e-6)
    assert slope.sum().item() == pytest.approx(0, abs=1e-12)


def test_rrhf_counts_only_misordered_pairs() -> None:
    policy = row(-1, -0.5, -1.2, -0.7).requires_grad_()
    record = GroupLogProbs(policy, torch.zeros_like(policy), torch.ones(1, 4))
    assert rrhf(record, row(4, 3, 2, 1)).item() == pytest.approx(1.3)
    ordered = rrhf(record, row(2, 4, 1, 3))
    assert ordered.item() == 0
    assert torch.equal(torch.autograd.grad(ordered.sum(), policy)[0], torch.zeros_like(policy))


def test_rrhf_compares_means_over_tokens() -> None:
    """Sums would be in the right order, -4 above -6; means are -2 and -1."""
    record = GroupLogProbs(row(-4, -6), row(0, 0), torch.tensor([[2, 6]]))
    assert rrhf(record, row(1, 0)).item() == pytest.approx(1.0)


# Two completions.


def _two() -> tuple[GroupLogProbs, Tensor]:
    """Margins on both sides of zero, the first completion preferred."""
    record = _record(groups=8, size=2)
    margins = record.log_ratio()[:, 0] - record.log_ratio()[:, 1]
    assert (margins > 0).any()
    assert (margins < 0).any()
    return record, torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(8, 2)


@pytest.mark.parametrize("objective", [plackett_luce_dpo, rank_net])
def test_of_two_completions_plackett_luce_and_rank_net_are_dpo(objective: GroupObjective) -> None:
    record, values = _two()
    torch.testing.assert_close(objective(record, values), dpo(record.pair()), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(objective(record, values.flip(1)), dpo(record.pair(1, 0)), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("values", "ratio"), [((1.0, 0.0), 0.532456), ((0.6, 0.4), 0.104472)])
def test_of_two_completions_lipo_is_weighted_dpo(values: tuple[float, float], ratio: float) -> None:
    record, _ = _two()
    weight = (2 ** values[0] - 2 ** values[1]) * (1 / math.log(2) - 1 / math.log(3))
    assert weight == pytest.approx(ratio, abs=1e-6)
    found = lipo(record, row(*values).expand(8, 2), beta=BETA)
    torch.testing.assert_close(found, weight * dpo(record.pair(), beta=BETA), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.4, 1.0])
def test_of_two_completions_robust_listwise_is_robust_dpo_at_a_hard_label(radius: float) -> None:
    record, values = _two()
    found = robust_listwise(record, values, radius=radius)
    torch.testing.assert_close(found, robust(dpo, radius)(record.pair(), None), atol=1e-12, rtol=1e-12)
    u = 0.1 * record.pair().log_ratio_difference()
    wanted = -functional.logsigmoid(u) + radius * u.clamp(min=0)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_of_two_completions_list_net_is_dpo_with_a_bradley_terry_label() -> None:
    record, values = _record(groups=8, size=2), _values(groups=8, size=2)
    label = torch.sigmoid((values[:, 0] - values[:, 1]) / 0.5)
    found = list_net(record, values, temperature=0.5)
    torch.testing.assert_close(found, dpo(record.pair(), label), atol=1e-12, rtol=1e-12)


# What each is.


def test_plackett_luce_is_a_probability_over_rankings() -> None:
    record = _record(groups=3)
    chances = [
        (-plackett_luce_dpo(record, torch.tensor([order], dtype=torch.float64).expand(3, 4))).exp()
        for order in permutations(range(4))
    ]
    torch.testing.assert_close(torch.stack(chances).sum(0), torch.ones(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_plackett_luce_leaves_a_tie_out_of_the_pool() -> None:
    record, scores = GroupLogProbs(row(1, 2, 3), row(0, 0, 0)), (1.0, 2.0, 3.0)
    wanted = sum(math.log1p(math.exp(scores[2] - own)) for own in scores[:2])
    assert plackett_luce_dpo(record, row(5, 5, 0), beta=1.0).item() == pytest.approx(wanted)


def test_no_ranking_is_less_likely_than_the_ascending_one() -> None:
    """The robust loss at radius 1 is the largest over all rankings; in between it is the mixture."""
    record, values = _record(), _values()
    losses = torch.stack(
        [
            plackett_luce_dpo(record, torch.tensor([order], dtype=torch.float64).expand(6, 4))
            for order in permutations(range(4))
        ]
    )
    worst = robust_listwise(record, values, radius=1.0)
    torch.testing.assert_close(worst, losses.amax(0), atol=1e-12, rtol=1e-12)
    mixed = 0.8 * plackett_luce_dpo(record, values) + 0.2 * worst
    torch.testing.assert_close(robust_listwise(record, values, radius=0.2), mixed, atol=1e-12, rtol=1e-12)


def test_at_the_reference_the_robust_gradient_is_the_plain_one() -> None:
    policy = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    record, values = GroupLogProbs(policy, torch.zeros_like(policy)), row(0.2, 0.9, 0.1, 0.5)
    torch.testing.assert_close(
        _gradient(REFERENCED["robust"], record, values), _gradient(REFERENCED["plackett-luce"], record, values)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_list_net_rests_where_the_implicit_rewards_are_the_values(temperature: float) -> None:
    values = _values()
    policy = (values / (temperature * BETA) + 7).requires_grad_()
    record = GroupLogProbs(policy, torch.zeros_like(policy))
    objective = partial(list_net, beta=BETA, temperature=temperature)
    torch.testing.assert_close(_gradient(objective, record, values), torch.zeros_like(values), atol=1e-12, rtol=0)


def test_lipo_ranks_by_score_and_not_by_value() -> None:
    """Three completions whose scores stand in the reverse order of their values."""
    record, values = GroupLogProbs(row(0, 1, 2), row(0, 0, 0)), (0.9, 0.5, 0.2)
    discount = [1 / math.log(1 + rank) for rank in (3, 2, 1)]
    wanted = sum(
        abs((2 ** values[i] - 2 ** values[j]) * (discount[i] - discount[j])) * math.log1p(math.exp(j - i))
        for i in range(3)
        for j in range(i + 1, 3)
    )
    assert lipo(record, row(*values), beta=1.0).item() == pytest.approx(wanted)


def test_lipo_leaves_the_reference() -> None:
    policy = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    slope = _gradient(lipo, GroupLogProbs(policy, torch.zeros_like(policy)), row(0.1, 0.9, 0.5))
    assert slope[0, 1] < 0 < slope[0, 0]


# What all of them promise.


@each_objective
def test_one_loss_a_group(name: str) -> None:
    loss = OBJECTIVES[name](_record(), _values())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float64
    assert (loss >= 0).all()


@each_objective
@pytest.mark.parametrize("situation", ["distinct", "tied values", "at the reference"])
def test_the_order_in_which_completions_are_listed_has_no_meaning(name: str, situation: str) -> None:
    logps, values = _record(), _values()
    if situation == "tied values":
        values = (values * 2).round()
    if situation == "at the reference":
        logps = replace(logps, reference=logps.policy.detach().clone())
    order = torch.tensor([2, 0, 3, 1])
    assert logps.length is not None
    shuffled = GroupLogProbs(
        logps.policy.detach()[:, order].requires_grad_(), logps.reference[:, order], logps.length[:, order]
    )
    found = OBJECTIVES[name](shuffled, values[:, order])
    torch.testing.assert_close(found, OBJECTIVES[name](logps, values), atol=1e-12, rtol=1e-12)
    slope = _gradient(OBJECTIVES[name], shuffled, values[:, order])
    torch.testing.assert_close(slope, _gradient(OBJECTIVES[name], logps, values)[:, order], atol=1e-12, rtol=1e-12)


@each_objective
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    logps, values = _record(), _values()
    found = _gradient(OBJECTIVES[name], logps, values)
    for k in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[k] = 1e-6
        above, below = (
            OBJECTIVES[name](replace(logps, policy=logps.policy.detach() + sign * step), values) for sign in (1, -1)
        )
        torch.testing.assert_close(found[:, k], (above - below) / 2e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_a_constant_on_all_rewards_of_a_prompt_changes_nothing(name: str) -> None:
    logps, values = _record(), _values()
    shifted = values + torch.arange(6, dtype=torch.float64).unsqueeze(-1)
    torch.testing.assert_close(OBJECTIVES[name](logps, shifted), OBJECTIVES[name](logps, values))


@pytest.mark.parametrize("name", ORDER_ONLY)
def test_these_read_only_the_order_of_the_values(name: str) -> None:
    logps, values = _record(), _values()
    torch.testing.assert_close(OBJECTIVES[name](logps, (5 * values).exp()), OBJECTIVES[name](logps, values))


@pytest.mark.parametrize("name", REFERENCED)
def test_a_constant_on_all_log_probs_of_a_prompt_changes_nothing(name: str) -> None:
    """The partition function of the implicit reward cancels; policy and reference enter as a ratio."""
    logps, values = _record(), _values()
    wanted = OBJECTIVES[name](logps, values)
    torch.testing.assert_close(OBJECTIVES[name](replace(logps, policy=logps.policy + 5), values), wanted)
    both = replace(logps, policy=logps.policy + values, reference=logps.reference + values)
    torch.testing.assert_close(OBJECTIVES[name](both, values), wanted)


@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_these_do_not_read_the_reference(name: str) -> None:
    logps, values = _record(), _values()
    other = replace(logps, reference=torch.full_like(logps.reference, torch.nan))
    assert torch.equal(OBJECTIVES[name](other, values), OBJECTIVES[name](logps, values))


@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_these_need_lengths(name: str) -> None:
    with pytest.raises(ValueError, match="length normalization needs the lengths"):
        OBJECTIVES[name](replace(_record(), length=None), _values())


@pytest.mark.parametrize("name", TIES_SAY_NOTHING)
def test_completions_of_one_value_teach_nothing(name: str) -> None:
    logps, values = _record(), torch.full((6, 4), 0.5, dtype=torch.float64)
    assert torch.equal(OBJECTIVES[name](logps, values), torch.zeros(6, dtype=torch.float64))
    assert torch.equal(_gradient(OBJECTIVES[name], logps, values), torch.zeros(6, 4, dtype=torch.float64))


@each_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_extreme_log_probs_stay_finite(name: str, dtype: torch.dtype, far: float) -> None:
    policy = torch.tensor([[far, 0.0, -far]], dtype=dtype, requires_grad=True)
    record = GroupLogProbs(policy, torch.zeros(1, 3, dtype=dtype), torch.ones(1, 3))
    loss = OBJECTIVES[name](record, torch.tensor([[0.9, 0.1, 0.4]], dtype=dtype))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), policy)[0].isfinite().all()


@each_objective
def test_groups_do_not_see_each_other(name: str) -> None:
    logps, values = _record(), _values()
    parts = [OBJECTIVES[name](logps.select(index), values[index]) for index in torch.arange(6).split(2)]
    torch.testing.assert_close(torch.cat(parts), OBJECTIVES[name](logps, values), atol=1e-12, rtol=1e-12)


@each_objective
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(6, 3), r"shape \(6, 4\), got torch.float32 of shape \(6, 3\)"),
        (torch.zeros(6, 4, dtype=torch.int64), "values must be a floating tensor"),
        (torch.full((6, 4), torch.nan), "drop completions whose score is missing"),
    ],
    ids=["short", "integers", "missing"],
)
def test_values_that_do_not_fit_are_refused(name: str, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](_record(), values)


@each_objective
def test_one_completion_is_no_list(name: str) -> None:
    with pytest.raises(ValueError, match="compares at least 2 completions of a prompt, got 1"):
        OBJECTIVES[name](_record(size=1), _values(size=1))


@pytest.mark.parametrize("objective", [plackett_luce_dpo, robust_listwise, rank_net, lipo, list_net, pro, rrhf])
@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_beta_must_be_positive(objective: GroupObjective, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive, got"):
        objective(_record(), _values(), beta=beta)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (partial(robust_listwise, radius=-0.1), r"probability of a wrong ranking, in \[0, 1\], got -0.1"),
        (partial(robust_listwise, radius=1.1), r"probability of a wrong ranking, in \[0, 1\], got 1.1"),
        (partial(lipo, discount_base=1.0), "base of a logarithm above 1, got 1.0"),
        (partial(list_net, temperature=0.0), "temperature must be positive, got 0.0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(objective: GroupObjective, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective(_record(), _values())
