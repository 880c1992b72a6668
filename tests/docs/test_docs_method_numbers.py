"""Numbers that only the pages of single objectives state."""

from __future__ import annotations

import math

import pytest
import torch
from pages import text
from rendered import DOCS

from setsail import methods
from setsail.objectives import GroupLogProbs, LogProbs, discopop, kto, lipo, sppo_hard


def _pair(u: torch.Tensor) -> LogProbs:
    zero = torch.zeros_like(u)
    return LogProbs(u, zero, zero, zero)


def _turns(tau: float) -> list[float]:
    """Margins at which discopop changes between falling and rising."""
    u = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    rises = discopop(_pair(u), beta=1.0, tau=tau).diff() > 0
    return u[1:-1][rises[1:] != rises[:-1]].tolist()


def test_discopop_has_a_hump_at_the_reference_and_loses_it() -> None:
    assert _turns(0.05) == pytest.approx([-0.119, 0.072], abs=1e-3)
    edge = (1 - math.log(2)) / 3
    u = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    discopop(_pair(u), beta=1.0, tau=0.05).sum().backward()
    assert u.grad is not None
    assert u.grad.item() == pytest.approx(0.784, abs=5e-4)
    assert any(turn < 0.1 for turn in _turns(edge - 0.001))
    assert edge == pytest.approx(0.102, abs=5e-4)
    page = text(DOCS / "methods" / "discopop.md")
    assert all(stated in page for stated in ("-0.119", "0.072", "0.784", "0.102"))


@pytest.mark.parametrize("tau", [0.11, 0.2, 1.0])
def test_discopop_with_a_wide_transition_only_falls(tau: float) -> None:
    assert _turns(tau) == []


def test_where_losses_start() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    start = LogProbs(zero, zero, zero, zero)
    assert sppo_hard(start).item() == pytest.approx(500_000)
    for name, stated in {"exo": 2.76, "nca": 1.386, "apo-zero": 1.0, "apo-down": 1.0, "discopop": 0.847}.items():
        assert methods.get(name).bound_objective()(start, None).item() == pytest.approx(stated, abs=2e-3)
    one = GroupLogProbs(torch.zeros(1, 1), torch.zeros(1, 1))
    assert kto(one, torch.ones(1, 1), reference_point=0.0).item() == 0.5


def test_where_rankings_start() -> None:
    four, scores = GroupLogProbs(torch.zeros(1, 4), torch.zeros(1, 4)), torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    for name, stated in {
        "pl-dpo": math.log(24),
        "robust-listwise": math.log(24),
        "rank-net": 6 * math.log(2),
        "list-net": math.log(4),
    }.items():
        assert methods.get(name).bound_objective()(four, scores).item() == pytest.approx(stated, abs=1e-5)


def test_lipo_at_its_largest_is_half_of_dpo() -> None:
    two = GroupLogProbs(torch.zeros(1, 2), torch.zeros(1, 2))
    assert lipo(two, torch.tensor([[1.0, 0.0]])).item() / math.log(2) == pytest.approx(0.53, abs=5e-3)


def test_the_most_that_imitating_the_best_of_16_costs() -> None:
    assert math.log(16) - 15 / 16 == pytest.approx(1.84, abs=6e-3)
    assert "1.84 at n = 16" in text(DOCS / "methods" / "best-of-n.md")


def test_the_least_pull_of_rdpo_and_the_floor_of_cdpo() -> None:
    beta, eps = 0.1, methods.get("rdpo").parameters["label_smoothing"]
    assert beta * eps / (1 - 2 * eps) == pytest.approx(0.0125)
    eps = methods.get("cdpo").parameters["label_smoothing"]
    assert math.log((1 - eps) / eps) == pytest.approx(2.2, abs=5e-3)
    assert -eps * math.log(eps) - (1 - eps) * math.log(1 - eps) == pytest.approx(0.325, abs=5e-4)
