"""A run that was stopped and resumed is the uninterrupted run, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build, StopAfter

from setsail import SailTrainer
from setsail.core import ConfigError

CASES: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo"},
    "sail-mix": {"method": "sail-mix", "route_weights": "ddp=0.2,dpp=0.3,dpr=0.3"},
    "published": {"method": "sail-dpr", "preset": "published", "labels": "sampled"},
    "mid round": {"method": "iterative-dpo", "staleness_limit": 3, "ref_model_sync_steps": 4},
    "moving average": {"method": "sail-dpp", "sync_ref_model": True, "ref_model_sync_steps": 1,
                       "ref_model_mixup_alpha": 0.3},
    "accumulation": {"method": "sail-dpr", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "scheduler": {"method": "sail-dpp", "lr_scheduler_type": "linear", "warmup_steps": 3, "optim": "rmsprop"},
}  # fmt: skip


def _optimizer(trainer: SailTrainer) -> dict[str, torch.Tensor]:
    state = trainer.optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, each in state.items() for name, value in each.items()}


def _compare(whole: SailTrainer, resumed: SailTrainer) -> None:
    assert tiny.same(tiny.weights(whole.model), tiny.weights(resumed.model))
    assert tiny.same(_optimizer(whole), _optimizer(resumed))
    assert len(_optimizer(whole)) > 5
    folders = [Path(str(each.args.output_dir)) for each in (whole, resumed)]
    metrics = [tiny.timeless(tiny.lines(folder / "metrics.jsonl")) for folder in folders]
    assert metrics[0] == metrics[1]
    assert sum("loss" in each for each in metrics[0]) >= 3
    pairs = [folder / "pairs.jsonl" for folder in folders]
    assert pairs[0].exists() == pairs[1].exists()
    if pairs[0].exists():
        assert pairs[0].read_bytes() == pairs[1].read_bytes()


@pytest.mark.parametrize(("name", "stop"), [*((name, 3) for name in CASES), ("sail-mix", 7), ("mid round", 7)])
def test_resumed_equals_uninterrupted(build: Build, name: str, stop: int) -> None:
    """Acceptance test 29: weights, optimizer, metrics and pairs. 24 rows, so epoch 2 starts at step 7."""
    # Steps 2 and 6 are checkpointed, in the middle of a log window of 4 steps and of a round of 4.
    options = {"max_steps": 9, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3, **CASES[name]}
    whole = build(out="whole", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        build(out="cut", callbacks=[StopAfter(stop)], **options).train()
    resumed = build(out="cut", **options)
    resumed.train(resume_from_checkpoint=True)
    _compare(whole, resumed)


def _lora(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **changes)


@pytest.mark.parametrize("method", ["sail-dpr", "iterative-dpo"])
def test_resume_with_adapter_and_dropout(build: Build, method: str) -> None:
    """Acceptance test 29 with LoRA and its dropout on: the global generators are restored too."""
    options = {
        "method": method, "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "disable_dropout": False,
        "peft_config": _lora(lora_dropout=0.3), "logging_steps": 2,
    }  # fmt: skip
    whole = build(out="whole", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        build(out="cut", callbacks=[StopAfter(3)], **options).train()
    resumed = build(out="cut", **options)
    resumed.train(resume_from_checkpoint=True)
    _compare(whole, resumed)


def test_dropout_draws_matter(build: Build) -> None:
    """The test above can fail: dropout changes the run."""
    runs = [
        build(out=f"{p}", peft_config=_lora(lora_dropout=p), disable_dropout=False, max_steps=3) for p in (0.0, 0.3)
    ]
    for each in runs:
        each.train()
    assert not tiny.same(tiny.weights(runs[0].model), tiny.weights(runs[1].model))


def test_resume_in_the_same_process(build: Build) -> None:
    """The trainer that was interrupted goes on itself, from its checkpoint and not from where it stands."""
    options = {"method": "sail-mix", "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    whole = build(out="whole", **options)
    whole.train()
    stop = StopAfter(5)
    again = build(out="cut", callbacks=[stop], **options)
    with pytest.raises(KeyboardInterrupt):
        again.train()
    stop.step = 99
    again.train(resume_from_checkpoint=True)
    _compare(whole, again)


def test_a_second_call_of_train_is_refused(build: Build) -> None:
    """Its run directory is taken, and without a checkpoint there is nothing to go back to."""
    trainer = build(max_steps=1)
    trainer.train()
    with pytest.raises(ConfigError, match="already holds a run"):
        trainer.train()
    with pytest.raises(ConfigError, match="has trained already"):
        trainer.train(resume_from_checkpoint=True)


def test_resume_from_a_path_object(build: Build, tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = build(out="run", **options)
    whole.train()
    other = build(out="run", **options)
    other.train(resume_from_checkpoint=tmp_path / "run" / "checkpoint-2")
    assert tiny.same(tiny.weights(whole.model), tiny.weights(other.model))
    assert other.directory.read_run()["resumed_from"] == "checkpoint-2"


def test_a_run_ended_before_its_first_checkpoint_starts_again(build: Build, tmp_path: Path) -> None:
    options = {"method": "sail-dpr", "max_steps": 4, "save_strategy": "steps", "save_steps": 4}
    whole = build(out="whole", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        build(out="cut", callbacks=[StopAfter(2)], **options).train()
    lost = tiny.lines(tmp_path / "cut" / "pairs.jsonl")
    again = build(out="cut", **options)
    again.train(resume_from_checkpoint=True)
    _compare(whole, again)
    assert tiny.lines(tmp_path / "cut" / "superseded" / "pairs.jsonl") == lost


def test_longer_than_before(build: Build) -> None:
    """A finished run can be extended: the first half equals, the rest goes on."""
    options = {"method": "sail-dpr", "save_strategy": "steps", "save_steps": 3}
    whole = build(out="whole", max_steps=6, **options)
    whole.train()
    build(out="half", max_steps=3, **options).train()
    longer = build(out="half", max_steps=6, **options)
    longer.train(resume_from_checkpoint=True)
    assert tiny.same(tiny.weights(whole.model), tiny.weights(longer.model))


def test_train_loss_covers_the_whole_run(build: Build) -> None:
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 4}
    whole = build(out="whole", **options)
    expected = whole.train().training_loss
    with pytest.raises(KeyboardInterrupt):
        build(out="cut", callbacks=[StopAfter(3)], **options).train()
    result = build(out="cut", **options).train(resume_from_checkpoint=True)
    assert result.training_loss == pytest.approx(expected, rel=1e-9)
    assert result.metrics["train_loss"] == result.training_loss


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"method": "sail-dpr"}, 'method was "sail-dpp", is "sail-dpr"'),
        ({"beta": 0.3}, r"objective was .*0\.1.* is .*0\.3"),
        ({"data": tiny.preferences(20)}, "training data was"),
        ({"seed": 9}, "seed was 3, is 9"),
        ({"gradient_accumulation_steps": 2}, "rows a step was 4, is 8"),
        ({"temperature": 0.7}, "sampling was"),
        ({"route_weights": "dpp=0.5"}, "routes was"),
    ],
)
def test_another_run_is_not_resumed(build: Build, changed: dict[str, Any], what: str) -> None:
    options = {"method": "sail-dpp", "max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    build(**options).train()
    with pytest.raises(ConfigError, match=what) as raised:
        build(**{**options, "max_steps": 4, **changed}).train(resume_from_checkpoint=True)
    assert "checkpoint-2 belongs to another run" in str(raised.value)


def test_what_may_change_on_resuming(build: Build) -> None:
    """Learning rate, logging and length of the run are the user's to change; rows a step may be split anew."""
    options = {"method": "sail-dpp", "max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    build(**options).train()
    changed = {"max_steps": 4, "learning_rate": 1e-4, "per_device_train_batch_size": 2, "logging_steps": 2}
    resumed = build(**{**options, **changed, "gradient_accumulation_steps": 2})
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
