"""The enumerable worlds that the exact tests run on."""

from __future__ import annotations

import pytest

from setsail import lab
from setsail.lab import TabularWorld
from setsail.policies.tabular import EnumerablePolicy


@pytest.fixture(params=["softmax", "autoregressive"])
def world(request: pytest.FixtureRequest) -> tuple[EnumerablePolicy, TabularWorld]:
    """A policy away from its reference, and what it trains on."""
    return lab.golden_world() if request.param == "softmax" else lab.token_world()


@pytest.fixture(params=[0.1, 0.5])
def beta(request: pytest.FixtureRequest) -> float:
    return float(request.param)
