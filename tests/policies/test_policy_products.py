"""The product of two frozen policies: what a scorer reads of it, and what moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frozen_policies import KINDS, PROMPTS, start, train
from torch import Tensor

from setsail.core import ConfigError
from setsail.objectives import LogProbs
from setsail.policies import ProductReference, collate, hold_reference, token_logps

ANSWERS = [tuple(2 + (3 * i + k) % 10 for k in range(1 + i % 4)) for i in range(len(PROMPTS))]
BATCH = collate(PROMPTS, ANSWERS, pad_id=0)


@torch.no_grad()
def _says(held: Any) -> Tensor:
    with held.active() as module:
        return token_logps(module.eval(), BATCH).sum(-1).double()


def _product(kind: str, share: float = 0.25, **options: Any) -> tuple[Any, Any, Any, ProductReference]:
    """A policy, its start, its last iterate (which has moved once), and their product."""
    policy, first = start(kind, name="start")
    last = hold_reference(policy, fresh_adapter=False, moves=True, name="last")
    train(policy)
    last.move(1.0)
    return policy, first, last, ProductReference(first, last, share, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_its_log_probs_are_the_weighted_sum(kind: str) -> None:
    _, first, last, product = _product(kind)
    assert [(held.name, share) for held, share in product.parts] == [("start", 0.25), ("last", 0.75)]
    total = sum(share * _says(held) for held, share in product.parts)
    assert torch.allclose(total, 0.25 * _says(first) + 0.75 * _says(last), atol=1e-9)  # type: ignore[arg-type]
    assert float((_says(first) - _says(last)).abs().max()) > 0.1


class _Known:
    """A frozen policy of which one log-ratio is known."""

    def __init__(self, log_ratio: float) -> None:
        self.name = self.description = "known"
        self.log_ratio = log_ratio
        self.parts = [(self, 1.0)]


def test_its_pairs_are_those_of_two_log_ratio_differences() -> None:
    """INPO: log-ratios of the policy .8, of the start .5, of the last iterate .6; tau/eta 1/3, eta .3: loss 2.0544."""
    start_, last, zero = _Known(0.5), _Known(0.6), torch.zeros(1)
    product = ProductReference(start_, last, share=1 / 3)  # type: ignore[arg-type]
    reference = torch.tensor([sum(share * held.log_ratio for held, share in product.parts)])  # type: ignore[attr-defined]
    h = LogProbs(torch.tensor([0.8]), zero, reference, zero).log_ratio_difference().item()
    assert h == pytest.approx(0.233333, abs=1e-6)
    assert (h - 1 / (2 * 0.3)) ** 2 == pytest.approx(2.054444, abs=1e-6)


@pytest.mark.parametrize(("share", "name"), [(1.0, "start"), (0.0, "last")])
def test_a_policy_without_a_share_is_not_asked(share: float, name: str) -> None:
    assert [(held.name, part) for held, part in _product("full weights", share)[3].parts] == [(name, 1.0)]


def test_products_of_products() -> None:
    _, first, last, product = _product("full weights", 0.5)
    nested = ProductReference(product, first, 0.5)
    assert [(held.name, share) for held, share in nested.parts] == [("start", 0.25), ("last", 0.25), ("start", 0.5)]
    assert sum(share for _, share in nested.parts) == 1
    assert product.parts[1][0] is last


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_policy_moves_and_the_first_stays(kind: str) -> None:
    policy, first, last, product = _product(kind)
    train(policy)
    anchor, before = _says(first), _says(last)
    product.move(1.0)
    assert torch.equal(_says(first), anchor)
    now = _says(last)
    assert float((now - before).abs().max()) > 0.05
    earlier = {name: weight.clone() for name, weight in product.weights().items()}
    assert earlier
    assert all(name.startswith("second.") for name in earlier)
    train(policy)
    product.move(1.0)
    product.restore(earlier)
    assert torch.equal(_says(last), now)
    assert torch.equal(_says(first), anchor)


def test_the_moving_sides_can_be_chosen() -> None:
    policy, first, last, product = _product("full weights", moving=("first", "second"))
    assert {name.split(".")[0] for name in product.weights()} == {"first", "second"}
    train(policy)
    product.move(1.0)
    assert torch.equal(_says(first), _says(last))
    other = hold_reference(policy, fresh_adapter=False, moves=True, name="other")
    train(policy)
    other.move(1.0)
    product.follow(other)
    assert torch.equal(_says(first), _says(other))
    still = ProductReference(first, last, 0.5, moving=())
    still.move(1.0)
    assert still.weights() == {}
    assert torch.equal(_says(last), _says(other))


def test_an_anchor_that_cannot_move_is_refused_only_where_it_should() -> None:
    policy, first, last, product = _product("fresh adapter")
    product.move(1.0)
    with pytest.raises(ConfigError, match="the base model under an adapter cannot move"):
        ProductReference(first, last, 0.5, moving=("first",)).move(1.0)
    assert policy.active_adapter == "default"


def test_it_cannot_be_entered() -> None:
    product = _product("full weights")[3]
    with pytest.raises(ConfigError, match=r"product of 0.25 x frozen copy .* cannot be entered .*; score its parts"):
        product.active()


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_are_shares(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share of a product must lie in \[0, 1\]"):
        _product("full weights", share)


def test_sides_have_names() -> None:
    with pytest.raises(ConfigError, match=r"called 'first' and 'second', got \['third'\]"):
        _product("full weights", moving=("third",))
