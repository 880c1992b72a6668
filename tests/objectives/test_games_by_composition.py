"""Game methods that are objectives of other names: direct Nash optimization is DPO, INPO is IPO.

Both take one step from a previous iterate ``pi_t`` whose exact form is known, so the minimizer of each has one too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bandit import ROCK_PAPER_SCISSORS, chance, every_pair, groups_of_two, minimizer, numbers, random_game
from torch import Tensor

from setsail.core import stream
from setsail.objectives import LogProbs, dpo, ipo

# Direct Nash optimization (arXiv 2404.03715): soft labels from win rates, the previous iterate as the reference.


def _direct_nash(eta: float, labels: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The exact minimizer of a round, the previous iterate, and the win rates against it."""
    preference, drawn = random_game(6, "direct"), stream(0, "direct")
    previous = torch.from_numpy(drawn.normal(size=6)).log_softmax(-1)
    rates = preference @ previous.exp()
    law = torch.from_numpy(drawn.random(36) + 0.05)
    p = labels(rates, preference)

    def risk(policy: Tensor) -> Tensor:
        return (law / law.sum() * dpo(groups_of_two(policy, previous).pair(), p, beta=eta)).sum() / eta**2

    return minimizer(risk, 6), previous, rates


def _from_win_rates(rates: Tensor, preference: Tensor) -> Tensor:
    first, second = every_pair(rates).unbind(-1)
    return torch.sigmoid(first - second)


@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
def test_direct_nash_optimization_is_dpo_on_win_rates(eta: float) -> None:
    """Whoever draws the pairs, the minimizer is ``pi_t exp(r_t / eta) / Z``; the preference itself as label is not."""
    found, previous, rates = _direct_nash(eta, _from_win_rates)
    wanted = (previous + rates / eta).softmax(-1)
    assert 0.5 * (found.exp() - wanted).abs().sum().item() < 1e-8
    other, _, _ = _direct_nash(eta, lambda rates, preference: preference.flatten())
    assert 0.5 * (other.exp() - wanted).abs().sum().item() > 1e-2


@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
def test_a_round_of_direct_nash_optimization_beats_the_previous_iterate(eta: float) -> None:
    """By at least ``eta KL(pi_{t+1} || pi_t)`` above one half."""
    found, previous, rates = _direct_nash(eta, _from_win_rates)
    wins = (found.exp() * rates).sum().item()
    divergence = (found.exp() * (found - previous)).sum().item()
    assert divergence > 1e-3
    assert wins >= 0.5 + eta * divergence


# INPO (arXiv 2407.00617): the reference is the geometric mixture of two frozen policies.

REFERENCE = numbers(0.6, 0.3, 0.1).log()
PREVIOUS = numbers(0.2, 0.3, 0.5).log()


def _inpo(share: float, law: Tensor) -> tuple[float, ...]:
    """Population minimizer at tau 0.1 and eta 0.3; ``share`` is the weight of the first reference."""
    reference = share * REFERENCE + (1 - share) * PREVIOUS

    def risk(policy: Tensor) -> Tensor:
        loss = ipo(groups_of_two(policy, reference).pair(), ROCK_PAPER_SCISSORS.flatten(), beta=0.3)
        return (chance(law, law) * loss).sum()

    return tuple(minimizer(risk, 3).exp().tolist())


@pytest.mark.parametrize(
    ("share", "law", "wanted"),
    [
        (1 / 3, PREVIOUS.exp(), (0.217834, 0.521300, 0.260866)),
        (1.0, PREVIOUS.exp(), (0.426007, 0.490115, 0.083878)),
        (2 / 3, PREVIOUS.exp(), (0.317978, 0.527618, 0.154404)),
        (0.0, PREVIOUS.exp(), (0.135046, 0.466108, 0.398846)),
        (1 / 3, numbers(1.0, 1.0, 1.0) / 3, (0.327467, 0.340579, 0.331953)),
    ],
    ids=["inpo", "without the previous", "weights swapped", "previous only", "uniform pairs"],
)
def test_inpo_is_ipo_against_a_geometric_mixture(share: float, law: Tensor, wanted: tuple[float, ...]) -> None:
    """Share tau / eta and pairs of the previous iterate; every other choice ends elsewhere."""
    assert _inpo(share, law) == pytest.approx(wanted, abs=6e-7)


def test_the_minimizer_of_inpo_is_one_mirror_step() -> None:
    gain = ROCK_PAPER_SCISSORS @ PREVIOUS.exp() / 0.3
    wanted = (gain + REFERENCE / 3 + PREVIOUS * 2 / 3).softmax(-1)
    assert _inpo(1 / 3, PREVIOUS.exp()) == pytest.approx(wanted.tolist(), abs=1e-12)


def test_the_loss_of_one_pair_of_inpo() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    mixture = numbers(0.5) / 3 + numbers(0.6) * 2 / 3
    logps = LogProbs(numbers(0.8), zero, mixture, zero)
    assert logps.log_ratio_difference().item() == pytest.approx(0.233333, abs=5e-7)
    assert ipo(logps, beta=0.3).item() == pytest.approx(2.054444, abs=5e-7)
