"""An engine for a frozen policy draws from that policy, however it is held, and says who wrote the completions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frozen_policies import KINDS, decoder, draw, moved, said, start, state, tokens, train

from setsail.core import Completion, ConfigError, EngineError, Prompt, Sampling
from setsail.engines import FrozenEngine, ScriptedEngine, TransformersEngine
from setsail.policies import ProductReference, hold_reference


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_stays_what_it_was_while_the_policy_trains(kind: str) -> None:
    """Tokens and log-probs, bit for bit; the policy's own are others by then."""
    policy, reference = start(kind)
    own, frozen = TransformersEngine(policy, decoder(), [1]), FrozenEngine(reference, decoder(), [1])
    before = said(draw(frozen))
    # At the start the two are one policy; an adapter that adds zeros may round.
    assert tokens(before) == tokens(said(draw(own)))
    train(policy.train())
    assert said(draw(frozen)) == before
    assert said(draw(own)) != before
    assert len({ids for group in before for ids, _ in group}) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_leaves_the_policy_as_it_was(kind: str) -> None:
    policy, reference = moved(kind)
    policy.train()
    next(p for p in policy.parameters() if p.requires_grad).requires_grad_(False)
    before = state(policy)
    engine = FrozenEngine(reference, decoder(), [1])
    draw(engine)
    assert state(policy) == before
    with reference.active() as module, torch.no_grad():
        module.get_output_embeddings().weight[3] = float("nan")
    after = state(policy)
    with pytest.raises(EngineError, match="not finite"):
        draw(engine)
    assert {**state(policy), "weights": None} == {**after, "weights": None}


def test_it_is_the_plain_engine_in_the_references_context() -> None:
    _, reference = moved("existing adapter")
    with reference.active() as module:
        by_hand = draw(TransformersEngine(module, decoder(), [1], batch_size=3), top_p=0.9)
    assert said(draw(FrozenEngine(reference, decoder(), [1], batch_size=3), top_p=0.9)) == said(by_hand)


@pytest.mark.parametrize("kind", KINDS[::2])
def test_two_frozen_policies_are_told_apart(kind: str) -> None:
    policy, reference = moved(kind)
    fresh = {"fresh_adapter": False, "moves": True}
    opponent = hold_reference(policy, name="opponent", **fresh)
    engines = [
        TransformersEngine(policy, decoder(), [1]),
        FrozenEngine(reference, decoder(), [1]),
        FrozenEngine(opponent, decoder(), [1], origin="opponent"),
    ]
    now, first, second = (said(draw(engine)) for engine in engines)
    assert tokens(second) == tokens(now)
    assert tokens(first) != tokens(now)
    train(policy)
    assert [said(draw(engine)) for engine in engines[1:]] == [first, second]


@pytest.mark.parametrize(
    ("build", "origin"),
    [
        (lambda policy, held: TransformersEngine(policy, decoder(), [1]), "policy"),
        (lambda policy, held: TransformersEngine(policy, decoder(), [1], origin="opponent"), "opponent"),
        (lambda policy, held: FrozenEngine(held, decoder(), [1]), "reference"),
        (lambda policy, held: FrozenEngine(held, decoder(), [1], origin="opponent"), "opponent"),
        (lambda policy, held: ScriptedEngine(lambda prompt, k: Completion(token_ids=(k,), text="")), "policy"),
        (
            lambda policy, held: ScriptedEngine(
                lambda prompt, k: Completion(token_ids=(k,), text=""), origin="mixture"
            ),
            "mixture",
        ),
    ],
)
def test_completions_say_who_wrote_them(build: Any, origin: str) -> None:
    for group in draw(build(*start("full weights"))):
        assert {answer.origin for answer in group.completions} == {origin}
        assert (group.policy_version, group.stream[0]) == (4, "sample")


def test_a_frozen_engine_needs_an_end() -> None:
    with pytest.raises(EngineError, match="no EOS id is known"):
        FrozenEngine(start("full weights")[1], decoder(), [])


def test_a_product_cannot_be_drawn_from() -> None:
    policy, reference = start("full weights")
    product = ProductReference(reference, hold_reference(policy, fresh_adapter=False, moves=True, name="last"), 0.5)
    engine = FrozenEngine(product, decoder(), [1])
    with pytest.raises(ConfigError, match=r"product of 0.5 x .* cannot be entered or drawn from; score its parts"):
        engine.generate(
            [Prompt(row_id=0, text="", token_ids=(3,))], n=1, sampling=Sampling(), streams=[("sample", 0, 0)], seed=0,
            policy_version=0,
        )  # fmt: skip
