"""Methods with an adapter: the frozen policies are the ones they should be, while all share one module."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build, StopAfter
from transformers import AutoModelForCausalLM, TrainerCallback

from setsail import SailConfig, SailTrainer, methods
from setsail.core import Completion
from setsail.data import eos_token_ids
from setsail.engines import TransformersEngine
from setsail.methods import Source
from setsail.policies import score

NAMES = ("xpo", "nash-md", "nash-ema", "dice", "inpo", "apo-accelerated", "egpo", "spin")
ROUND = 4


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])


class Kept(TrainerCallback):
    """The trained adapter's weights after each step."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after[0] = _trained(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after[state.global_step] = _trained(kwargs["model"])


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def _run(build: Build, name: str, *, resume: bool = False, **options: Any) -> SailTrainer:
    settings = {
        "max_steps": 10,
        "learning_rate": 3e-3,
        "peft_config": _lora(),
        **tiny.shortened(name, ROUND),
        **options,
    }
    trainer = build(data=tiny.preferences(20), **settings)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def _adapter(trainer: SailTrainer, name: str) -> dict[str, torch.Tensor]:
    """A frozen adapter's weights under the names of the trained one."""
    parameters: dict[str, torch.Tensor] = dict(trainer.model.named_parameters())
    return {
        key.replace(f".{name}.", ".default."): weight.detach().clone()
        for key, weight in parameters.items()
        if f".{name}." in key
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_method_with_an_adapter_resumes_exactly(build: Build, tmp_path: Path, model_path: str, name: str) -> None:
    """From step 5: inside a round, between two look-ahead steps, after a move; the base model is never touched."""
    whole = _run(build, name, out="whole")
    options = {"save_strategy": "steps", "save_steps": 5, "out": "cut"}
    with pytest.raises(KeyboardInterrupt):
        _run(build, name, callbacks=[StopAfter(6)], **options)
    resumed = _run(build, name, resume=True, **options)
    assert tiny.same(tiny.weights(whole.model), tiny.weights(resumed.model))
    for file in ("metrics.jsonl", "pairs.jsonl"):
        written = [tiny.timeless(tiny.lines(tmp_path / out / file)) for out in ("whole", "cut")]
        assert written[0] == written[1]
    base = AutoModelForCausalLM.from_pretrained(model_path).state_dict()
    held = {key.replace(".base_layer", ""): value for key, value in whole.model.get_base_model().state_dict().items()}
    assert all(torch.equal(value, held[key]) for key, value in base.items())
    assert whole.alarms.raised.keys() <= {"likelihood_displacement"}


# The fixed reference: the bare base model.


def _redrawn(
    trainer: SailTrainer, model_path: str, records: list[dict[str, Any]], position: int, count: int
) -> list[list[Completion]]:
    """What the bare model draws from the streams of a route's candidates of ``position``."""
    tokenizer = trainer.processing_class
    bare = AutoModelForCausalLM.from_pretrained(model_path)
    engine = TransformersEngine(bare, tokenizer, eos_token_ids(tokenizer, bare.generation_config), batch_size=16)
    prompts = {row.prompt.row_id: row.prompt for row in trainer.train_dataset}
    groups = engine.generate(
        [prompts[each["row_id"]] for each in records],
        n=count,
        sampling=trainer.args.sampling,
        streams=[("sample", each["row_id"], each["epoch"], *([position] if position else [])) for each in records],
        seed=trainer.args.seed,
        policy_version=0,
    )
    return [list(group.completions) for group in groups]


def _shares(build: Build, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """nash-md whose opponent is the mixture of another share."""
    method = methods.get("nash-md")
    policy = method.routes[0].candidates[0]
    route = dataclasses.replace(method.routes[0], candidates=(policy, Source(origin="mixture", share=share)))
    monkeypatch.setattr(SailConfig, "resolved_method", lambda self: method.with_parts(routes=(route,)))


@pytest.mark.parametrize(
    ("name", "origin", "position", "count"),
    [("xpo", "reference", 1, 1), ("rs-dpo", "reference", 0, 4), ("nash-md", "mixture", 1, 1)],
)
def test_the_references_answers_are_the_bare_models(
    build: Build, tmp_path: Path, model_path: str, monkeypatch: pytest.MonkeyPatch,
    name: str, origin: str, position: int, count: int,
) -> None:  # fmt: skip
    """Token for token, from the first step to the last, with the policy's own adapter far away by then.

    The mixture's reference is seen where its share is 1.
    """
    if name == "nash-md":
        _shares(build, monkeypatch, 1.0)
    trainer = _run(build, name, learning_rate=3e-2)
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    redrawn = _redrawn(trainer, model_path, records, position, count)
    assert {record["step"] for record in records} >= {0, 5, 9}
    found = 0
    for record, expected in zip(records, redrawn, strict=True):
        for ids, logp, who in zip(record["token_ids"], record["logps"], record["origins"], strict=True):
            if who == origin:
                [same] = {(one.token_ids, one.logp) for one in expected if list(one.token_ids) == ids}
                assert logp == pytest.approx(same[1], abs=1e-5)
                found += 1
    assert found >= 20
    if name == "xpo":
        mine = _redrawn(trainer, model_path, records, 0, 1)
        drawn = [record["token_ids"][record["origins"].index("policy")] for record in records]
        other = [list(one.token_ids) != ids for [one], ids in zip(mine, drawn, strict=True)]
        # At first the policy is the bare model; by the end it answers differently.
        assert not any(differs for record, differs in zip(records, other, strict=True) if record["step"] == 0)
        assert any(differs for record, differs in zip(records, other, strict=True) if record["step"] == 9)


@pytest.mark.parametrize("name", ["xpo", "egpo", "nash-ema"])
def test_log_ratios_are_to_the_bare_model(build: Build, model_path: str, name: str) -> None:
    """A reference that does not move gives the bare model's log-probs, bit for bit, after the policy has moved."""
    trainer = _run(build, name, learning_rate=3e-2)
    bare = AutoModelForCausalLM.from_pretrained(model_path)
    rows = [row for row in trainer.train_dataset if row.chosen is not None][:6]
    prompts, sides = [row.prompt for row in rows], [row.chosen for row in rows if row.chosen is not None]
    expected = score(
        bare, [prompt.token_ids for prompt in prompts], [side.token_ids for side in sides],
        pad_id=trainer.processing_class.pad_token_id, device="cpu", batch_size=trainer.scorer.batch_size,
    )  # fmt: skip
    for one, other in zip(trainer.scorer.under_reference(prompts, sides), expected, strict=True):
        assert torch.equal(one, other)
    now = trainer.scorer.under_policy(prompts, sides)
    assert max(float((a - b).abs().max()) for a, b in zip(now, expected, strict=True)) > 0.05


# Frozen policies that move: adapters beside the trained one.


def test_the_rounds_reference_is_the_policy_of_its_start(build: Build) -> None:
    kept = Kept()
    trainer = _run(build, "spin", callbacks=[kept])
    assert tiny.same(_adapter(trainer, "reference"), kept.after[8])


def test_with_momentum_policy_and_reference_start_a_round_pushed_on(build: Build) -> None:
    """theta~ = theta^_8 + 0.3 (theta^_8 - theta^_4), from weights as training left them."""
    kept = Kept()
    trainer = _run(build, "apo-accelerated", callbacks=[kept])
    before, now = kept.after[4], kept.after[8]
    pushed = {name: now[name] + 0.3 * (now[name] - before[name]) for name in now}
    assert tiny.relative_difference(_adapter(trainer, "reference"), pushed) < 1e-6
    assert tiny.relative_difference(pushed, now) > 1e-3


def test_an_opponent_one_move_behind(build: Build) -> None:
    kept = Kept()
    trainer = _run(build, "dice", callbacks=[kept])
    assert tiny.same(_adapter(trainer, "opponent"), kept.after[4])
    assert tiny.same(_adapter(trainer, "reference"), kept.after[8])


def test_an_averaged_opponent(build: Build) -> None:
    """average <- (1 - m) average + m pi before every step but the first; nothing moves after the last."""
    kept = Kept()
    trainer = _run(build, "nash-ema", callbacks=[kept])
    average, mixup = kept.after[0], methods.get("nash-ema").opponent.mixup  # type: ignore[union-attr]
    for step in range(1, 10):
        average = {name: (1 - mixup) * average[name] + mixup * kept.after[step][name] for name in average}
    assert tiny.relative_difference(_adapter(trainer, "opponent"), average) < 1e-6


def test_an_anchored_reference_is_the_product_with_the_bare_model(build: Build, model_path: str) -> None:
    """log pi_ref = 1/3 log pi_0 + 2/3 log pi of the round's start."""
    kept = Kept()
    trainer = _run(build, "inpo", callbacks=[kept])
    row = trainer.train_dataset[0]
    assert row.chosen is not None
    [reference] = trainer.scorer.under_reference([row.prompt], [row.chosen])
    parts = [[row.prompt.token_ids], [row.chosen.token_ids]]
    [bare] = score(AutoModelForCausalLM.from_pretrained(model_path), *parts, pad_id=0, device="cpu")
    with torch.no_grad():
        parameters = dict(trainer.model.named_parameters())
        for name, weight in kept.after[8].items():
            parameters[name].copy_(weight)
    [start] = trainer.scorer.under_policy([row.prompt], [row.chosen])
    assert torch.allclose(reference, bare / 3 + 2 * start / 3, atol=1e-5)
    assert float((start - bare).abs().max()) > 0.01
