"""Objectives of the field as methods: the expected training gradient is that of a loss written by hand, to 1e-6.

The hand-written side (``by_hand_field.py``) is plain loops and numbers, differentiated by finite differences. For
policy gradients it is minus the gradient of ``J = E[r] - beta KL``, which no sampling enters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from by_hand import Numbers, Term, numbers, total
from by_hand_field import FIELD, GENERATIONS, both, grpo, likelihood, logistic_pairs, objective_j
from test_gradients_by_hand import WORLDS, World
from torch import Tensor

from setsail import lab
from setsail.methods import Method, get

FEW = {"reinforce": 1, "p3o": 2, "copg": 2}
"""Completions a prompt, where they are not ``GENERATIONS``."""


def _small(name: str) -> Method:
    method = get(name)
    return method.configured(generations=FEW.get(name, GENERATIONS)) if method.draws else method


def _error(method: Method, terms: Callable[[Numbers], list[Term]], made: World) -> float:
    policy, world = made
    expected = terms(numbers(policy.frozen(), world))

    def loss() -> Tensor:
        return torch.tensor(total(expected, policy.log_probs()), dtype=torch.float64)

    wanted = lab.finite_difference(loss, lab.parameters(policy))
    found = lab.mixture_gradient(method, policy, world)
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("world", ["softmax", "tokens"])
@pytest.mark.parametrize("name", FIELD)
def test_the_expected_gradient_of_a_method_of_the_field_is_that_written_by_hand(name: str, world: str) -> None:
    assert _error(_small(name), FIELD[name], WORLDS[world]()) < 1e-6


J = {"reinforce": 0.1, "rloo": 0.1, "p3o": 0.1, "copg": 0.06}
"""By method: the strength of the KL penalty in what it climbs."""


@pytest.mark.parametrize("generations", [2, 4])
@pytest.mark.parametrize("name", ["rloo", "p3o"])
def test_a_policy_gradient_climbs_its_objective_however_many_answers_are_drawn(name: str, generations: int) -> None:
    method = get(name).configured(generations=generations)
    assert _error(method, objective_j(0.1), WORLDS["softmax"]()) < 1e-6


@pytest.mark.parametrize("name", J)
@pytest.mark.parametrize("rewards", [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], ids=["binary", "all alike"])
def test_rewards_that_tie_leave_the_penalty_in_force(name: str, rewards: list[float]) -> None:
    """Of answers scored alike the KL still tells which are farther from the reference."""
    policy, world = WORLDS["softmax"]()
    tied = replace(world, reward=torch.tensor([rewards], dtype=torch.float64))
    factor = 2.0 if name == "copg" else 1.0
    assert _error(_small(name), objective_j(J[name], factor), (policy, tied)) < 1e-6


def test_both_forms_of_the_pairwise_ratio_climb_the_same_objective() -> None:
    joint = get("p3o").configured(parameters={"joint": True})
    assert _error(joint, objective_j(0.1), WORLDS["tokens"]()) < 1e-6


def test_the_distributional_gradient_of_the_reverse_divergence_climbs_the_objective_over_beta() -> None:
    """``KL(pi || pi*) = -J / beta + log Z``; Z of the other answers is a baseline there."""
    method = get("f-dpg").configured(parameters={"divergence": "reverse_kl"}, generations=2)
    assert _error(method, objective_j(0.1, factor=10.0), WORLDS["softmax"]()) < 1e-6


@pytest.mark.parametrize("baseline", [-3.0, 0.7])
def test_a_baseline_of_other_rows_changes_nothing_on_average(baseline: float) -> None:
    policy, world = WORLDS["tokens"]()
    for name in ("reinforce", "rloo"):
        slopes = [lab.mixture_gradient(_small(name), policy, world, baseline=b) for b in (0.0, baseline)]
        torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-10)


WRONG: dict[str, tuple[str, Callable[[Numbers], list[Term]]]] = {
    "labels not smoothed": ("cdpo", logistic_pairs(0.1)),
    "labels not corrected": ("rdpo", FIELD["cdpo"]),
    "likelihood a completion": ("cpo", both(logistic_pairs(0.1), likelihood(1.0, per_token=False))),
    "no likelihood": ("rpo-per-token", logistic_pairs(0.5)),
    "no weights of ranks": ("lipo", FIELD["rank-net"]),
    "one kind of mark": ("kto", FIELD["bco"]),
    "half the penalty": ("rloo", objective_j(0.05)),
    "kl instead of contrast": ("copg", objective_j(0.06)),
    "no filter": ("pf-reinforce", objective_j(0.1)),
    "other direction": ("f-dpg", objective_j(0.1, factor=10.0)),
    "fewer answers": ("grpo", lambda world: grpo(world, 2)),
}


@pytest.mark.parametrize("what", WRONG)
def test_another_loss_of_the_field_is_noticed(what: str) -> None:
    name, terms = WRONG[what]
    assert _error(_small(name), terms, WORLDS["tokens"]()) > 1e-3
