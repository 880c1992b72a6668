"""Numbers and closed forms that only a page states: where a method's exact rounds lead, by enumeration."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from setsail import lab, methods
from setsail.lab import PreferenceGame, TabularWorld
from setsail.lab.pairs import dataset_pairs
from setsail.methods import Method
from setsail.policies.tabular import TabularPolicy


def _law(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


def _world(start: Tensor, preference: Tensor, rows: Tensor) -> TabularWorld:
    reference = TabularPolicy(start[None].clone()).frozen()
    return TabularWorld(reference, dataset_pairs(rows, torch.ones(len(rows), dtype=torch.float64)), preference[None])


def _exact_round(method: Method, start: Tensor, world: TabularWorld, rate: float) -> Tensor:
    """Where a round ends whose answers and reference are those of ``start``, trained to the end."""
    policy, sampler = TabularPolicy(start[None].clone()), TabularPolicy(start[None].clone()).frozen()
    fit = lab.train_exact(
        policy, lambda: lab.mixture_gradient(method, policy, world, sampler=sampler), rate=rate, tolerance=1e-10
    )
    assert fit.residual < 1e-10
    return policy.log_probs()[0].detach()


# spin.md: the data's law is 0.6, 0.3, 0.1 and the policy starts elsewhere.

DATA = _law(0.6, 0.3, 0.1)
DEMONSTRATIONS = torch.tensor([[0, 0, 0]] * 6 + [[0, 1, 0]] * 3 + [[0, 2, 0]])


def _spin(beta: float, start: Tensor) -> Tensor:
    method = methods.get("spin").configured(parameters={"beta": beta})
    world = _world(start, torch.full((3, 3), 0.5, dtype=torch.float64), DEMONSTRATIONS)
    return _exact_round(method, start, world, rate=2 / beta**2)


def _off(policy: Tensor) -> float:
    """Largest difference of log-odds to the data's."""
    gap = policy - DATA
    return (gap - gap[0]).abs().max().item()


@pytest.mark.parametrize("beta", [1.0, 3.0, 0.6, 0.4])
def test_an_exact_round_of_spin_multiplies_the_distance_to_the_data(beta: float) -> None:
    start = _law(0.5, 0.3, 0.2)
    found = _spin(beta, start)
    wanted = (start + (DATA - start) / beta).log_softmax(-1)
    torch.testing.assert_close(found.exp(), wanted.exp(), atol=1e-7, rtol=0)
    assert _off(found) == pytest.approx(abs(1 - 1 / beta) * _off(start), abs=1e-6)
    assert (_off(found) < _off(start)) == (beta > 0.5)


def test_spin_rests_at_the_data() -> None:
    world = _world(DATA, torch.full((3, 3), 0.5, dtype=torch.float64), DEMONSTRATIONS)
    policy = TabularPolicy(DATA[None].clone())
    slope = lab.mixture_gradient(methods.get("spin"), policy, world, sampler=policy.frozen())
    assert slope.abs().max().item() < 1e-15


# dno.md: win rates from few candidates.


@pytest.mark.parametrize(
    ("generations", "wanted"), [(2, (0.414, 0.117, 0.470)), (5, (0.431, 0.156, 0.414)), (9, (0.432, 0.164, 0.404))]
)
def test_win_rates_from_few_candidates_lean_to_the_preference_of_the_pair(
    generations: int, wanted: tuple[float, ...]
) -> None:
    game = lab.uneven_cycle(beta=0.0)
    start = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
    assert start.exp().tolist() == pytest.approx((0.426, 0.258, 0.316), abs=5e-4)
    assert lab.dno_exact(start, game, 0.2).exp().tolist() == pytest.approx((0.433, 0.172, 0.395), abs=5e-4)
    # More than five would be slow to enumerate: there the other candidates' law is that of their counts.
    law = _label_law(game.preference, start, generations)
    policy = TabularPolicy(start[None].clone())
    reference = TabularPolicy(start[None].clone()).frozen()
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    first, second = grid.unbind(-1)
    weight = (start[first] + start[second]).exp()
    pairs = lab.WeightedPairs(torch.zeros(9, dtype=torch.int64), first, second, weight, law[first, second])
    method = methods.get("dno").configured(parameters={"beta": 0.2})
    lab.train_exact(
        policy,
        lambda: lab.gradient(lab.risk(policy, reference, pairs, method.bound_objective()), policy),
        rate=100.0,
        tolerance=1e-11,
    )
    found = policy.log_probs()[0].detach().exp()
    assert found.tolist() == pytest.approx(wanted, abs=6e-4)
    if generations <= 5:
        method = method.configured(generations=generations)
        world = _world(start, game.preference, torch.tensor([[0, 0, 1]]))
        torch.testing.assert_close(_exact_round(method, start, world, 100.0).exp(), found, atol=1e-7, rtol=0)


def _label_law(preference: Tensor, start: Tensor, generations: int) -> Tensor:
    """Mean label of each pair, ``E[sigmoid(w1 - w2)]`` over the other candidates."""
    others = generations - 2
    label = torch.zeros(3, 3, dtype=torch.float64)
    for a in range(others + 1):
        for b in range(others + 1 - a):
            counts = torch.tensor([a, b, others - a - b], dtype=torch.float64)
            ways = torch.lgamma(torch.tensor(others + 1.0, dtype=torch.float64)) - torch.lgamma(counts + 1).sum()
            chance = (ways + (counts * start).sum()).exp()
            wins = preference @ counts
            rates = (wins.unsqueeze(1) + preference) / (generations - 1)
            label += chance * torch.sigmoid(rates - rates.T)
    return label


# games.md: what is said of labels.

GRADED = torch.tensor([[0.5, 0.6, 0.6], [0.4, 0.5, 0.6], [0.4, 0.4, 0.5]], dtype=torch.float64)


def test_hard_labels_have_another_equilibrium() -> None:
    soft = PreferenceGame(GRADED, torch.zeros(3), beta=0.1)
    hard = PreferenceGame((GRADED > 0.5).double() + 0.5 * (GRADED == 0.5).double(), torch.zeros(3), beta=0.1)
    assert lab.equilibrium(soft).exp().tolist() == pytest.approx((0.581, 0.253, 0.166), abs=5e-4)
    assert lab.equilibrium(hard).exp().tolist() == pytest.approx((0.987, 0.007, 0.006), abs=5e-4)


@pytest.mark.parametrize("name", ["oaif-ipo", "egpo"])
def test_what_rests_at_the_equilibrium_does_not_with_hard_labels(name: str) -> None:
    game = PreferenceGame(GRADED, torch.zeros(3), beta=0.5)
    policy = TabularPolicy(lab.equilibrium(game)[None].clone())
    method = methods.get(name).configured(parameters={"beta": 0.5})
    soft = _world(game.reference, GRADED, torch.tensor([[0, 0, 1]]))
    hard = replace(soft, preference=(GRADED > 0.5).double()[None] + 0.5 * torch.eye(3, dtype=torch.float64)[None])
    assert lab.mixture_gradient(method, policy, soft).abs().max().item() < 1e-14
    assert lab.mixture_gradient(method, policy, hard).abs().max().item() > 1e-2


def test_labels_drawn_from_the_preference_leave_the_equilibrium_where_it_is() -> None:
    game = PreferenceGame(GRADED, torch.zeros(3), beta=0.5)
    policy = TabularPolicy(lab.equilibrium(game)[None].clone())
    method = methods.get("oaif-ipo").configured(parameters={"beta": 0.5}, labels="sampled")
    world = _world(game.reference, GRADED, torch.tensor([[0, 0, 1]]))
    assert lab.mixture_gradient(method, policy, world).abs().max().item() < 1e-14


# nash-md.md and nash-ema.md: the policy gradient's place of rest.


def test_nash_md_rests_beside_the_equilibrium() -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    method = methods.get("nash-md").configured(parameters={"beta": 0.5})
    world = _world(game.reference, game.preference, torch.tensor([[0, 0, 1]]))

    def slope(at: Tensor) -> float:
        return lab.mixture_gradient(method, TabularPolicy(at[None].clone()), world).abs().max().item()

    assert slope(lab.equilibrium(game, mixture=0.125)) < 1e-14
    assert slope(lab.equilibrium(game)) > 1e-3


def test_nash_ema_rests_at_the_equilibrium_once_its_average_does() -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    policy = TabularPolicy(lab.equilibrium(game)[None].clone())
    world = replace(_world(game.reference, game.preference, torch.tensor([[0, 0, 1]])), opponent=policy.frozen())
    method = methods.get("nash-ema").configured(parameters={"beta": 0.5})
    assert lab.mixture_gradient(method, policy, world).abs().max().item() < 1e-14


# apl.md, samplers-*.md, xpo.md: with a Bradley-Terry labeler the law of the pairs does not move the fixed point.


@pytest.mark.parametrize("name", ["online-dpo", "samplers-mix-r", "samplers-mix-p", "xpo"])
def test_the_law_of_the_pairs_does_not_move_the_fixed_point(name: str) -> None:
    _, world, reward = lab.six_responses()
    method = methods.get(name).configured(parameters={"beta": 1.0}, generations=2)
    method = method.with_parts(addends=())
    best = lab.optimal_policy(world.reference, reward, beta=1.0)
    assert lab.mixture_gradient(method, best, world).abs().max().item() < 1e-14


# oaif-slic.md: between the kinks the hinge is a straight line.


def test_between_its_kinks_the_hinge_is_a_policy_gradient() -> None:
    policy, world = lab.golden_world()
    logps = world.data.log_probs(policy, world.reference)
    p = world.data.p
    assert p is not None
    loss = methods.get("oaif-slic").bound_objective()(logps, p)
    line = 1 - (2 * p - 1) * 0.002 * logps.log_ratio_difference()
    torch.testing.assert_close(loss, line, atol=1e-15, rtol=0)
