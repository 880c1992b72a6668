"""Each alarm sounds when it should, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import TrainerCallback

from setsail import SailTrainer
from setsail.core import TrainingError
from setsail.engines import TransformersEngine
from setsail.training.alarms import Drift


class At(TrainerCallback):
    """Does something to the trainer before a step (counted from 1)."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action = step, action

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.action()


def _alarms(trainer: SailTrainer) -> list[dict[str, Any]]:
    return trainer.directory.read("alarms")


@pytest.mark.parametrize("method", ["dpo", "sail-mix", "online-dpo", "sail-revkl"])
def test_a_healthy_run_sounds_none(build: Build, method: str) -> None:
    trainer = build(method=method, max_steps=4, on_alarm="stop", learning_rate=1e-4)
    trainer.train()
    assert _alarms(trainer) == []
    assert not (Path(str(trainer.args.output_dir)) / "alarms.jsonl").exists()


class _BreakLoss:
    """Makes the loss of one optimizer step non-finite, on one of its micro-batches."""

    def __init__(self, trainer: SailTrainer, step: int, value: float) -> None:
        self.trainer, self.step, self.value = trainer, step, value
        self.compute = trainer.compute_loss
        self.done = False

    def _rows(self, batch: Any) -> list[int]:
        return [group.prompt.row_id for group in batch.groups]

    def __call__(self, model: Any, inputs: Any, **options: Any) -> Any:
        loss = self.compute(model, inputs, **options)
        if self.trainer.state.global_step + 1 == self.step and not self.done:
            self.done = True
            self.trainer.pending_alarms += [
                ("non_finite", f"the loss is {self.value}", tuple(self._rows(inputs["micro_batch"])))
            ]
            return loss * self.value
        return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_finite_loss_is_skipped(build: Build, value: float) -> None:
    """The update is not made, the rows of the micro-batch are named, and the run goes on."""
    trainer = build(max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    seen: list[dict[str, torch.Tensor]] = []
    trainer.add_callback(At(2, lambda: seen.append(tiny.weights(trainer.model))))
    trainer.add_callback(At(3, lambda: seen.append(tiny.weights(trainer.model))))
    trainer.compute_loss = _BreakLoss(trainer, 2, value)  # type: ignore[method-assign]
    trainer.train()
    assert tiny.same(seen[0], seen[1])
    assert not tiny.same(seen[1], tiny.weights(trainer.model))
    assert all(torch.isfinite(weight).all() for weight in tiny.weights(trainer.model).values())
    [alarm] = _alarms(trainer)
    assert (alarm["alarm"], alarm["step"]) == ("non_finite", 2)
    assert len(alarm["row_ids"]) == 2
    assert set(alarm["row_ids"]) <= set(range(24))
    assert f"the loss is {value}; the update is skipped" in alarm["message"]
    assert str(alarm["row_ids"]) in alarm["message"]


def test_a_gradient_alone_can_break(build: Build) -> None:
    """A finite loss with an infinite gradient: the update is skipped, all rows of the step are named."""
    trainer = build(max_steps=2)
    embedding = trainer.model.get_input_embeddings().weight
    before = tiny.weights(trainer.model)
    embedding.register_hook(lambda gradient: gradient * float("inf"))
    trainer.train()
    assert tiny.same(before, tiny.weights(trainer.model))
    alarms = _alarms(trainer)
    assert [alarm["step"] for alarm in alarms] == [1, 2]
    assert len(alarms[0]["row_ids"]) == 4
    assert "its gradient is not" in alarms[0]["message"]


def test_stopping_saves_a_state_that_goes_on(build: Build, tmp_path: Path) -> None:
    """on_alarm="stop": TrainingError, a complete checkpoint between two steps, and a run that can be resumed."""
    options = {"method": "sail-dpr", "max_steps": 4, "max_grad_norm": 0.0}
    trainer = build(**options, on_alarm="stop")
    trainer.compute_loss = _BreakLoss(trainer, 2, float("nan"))  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"alarm non_finite at step 2: .* the state was saved"):
        trainer.train()
    assert trainer.directory.read_run()["status"] == "stopped"
    assert [each.name for each in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = build(**options, on_alarm="stop")
    resumed.train(resume_from_checkpoint=True)
    # The same as a run in which the step was skipped and nothing stopped.
    other = build(out="other", **options)
    other.compute_loss = _BreakLoss(other, 2, float("nan"))  # type: ignore[method-assign]
    other.train()
    assert tiny.same(tiny.weights(resumed.model), tiny.weights(other.model))
    assert resumed.directory.read("pairs") == other.directory.read("pairs")


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_sampler_and_scorer_disagreeing(build: Build, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """Sampled log-probs that the scorer does not confirm are reported; 0.5 nats an answer are more than rounding."""
    import dataclasses

    generate = TransformersEngine.generate

    def shifted(self: Any, *args: Any, **options: Any) -> Any:
        groups = generate(self, *args, **options)
        return [
            dataclasses.replace(
                group, completions=tuple(dataclasses.replace(c, logp=c.logp + shift) for c in group.completions)
            )
            for group in groups
        ]

    monkeypatch.setattr(TransformersEngine, "generate", shifted)
    trainer = build(method="online-dpo", max_steps=2)
    trainer.train()
    alarms = _alarms(trainer)
    assert [alarm["alarm"] for alarm in alarms] == (["sampler_disagrees"] * 2 if shift else [])
    if shift:
        assert len(alarms[0]["row_ids"]) == 4
        assert "sampler and scorer disagree" in alarms[0]["message"]


def test_with_dropout_they_are_not_compared(build: Build) -> None:
    """Training with dropout scores another policy than was sampled: that is the user's choice, not a fault."""
    trainer = build(method="online-dpo", max_steps=2, disable_dropout=False)
    for module in trainer.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    trainer.train()
    assert _alarms(trainer) == []


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_a_reference_that_changes(build: Build, action: str) -> None:
    trainer = build(max_steps=3, on_alarm=action)

    def write() -> None:
        with torch.no_grad():
            trainer.reference.module.lm_head.weight.add_(0.01 * torch.arange(32))  # type: ignore[attr-defined]

    trainer.add_callback(At(2, write))
    if action == "stop":
        with pytest.raises(TrainingError, match="alarm reference_changed at step 2"):
            trainer.train()
    else:
        trainer.train()
    assert [(alarm["alarm"], alarm["step"]) for alarm in _alarms(trainer)] == [("reference_changed", 2)]
    # The log line that noticed it is written all the same.
    assert [line["step"] for line in trainer.directory.read("metrics")][:2] == [1, 2]


def test_a_reference_that_moves_by_rule_is_no_alarm(build: Build) -> None:
    trainer = build(method="iterative-dpo", staleness_limit=0, ref_model_sync_steps=1, max_steps=3)
    before = tiny.weights(trainer.reference.module)  # type: ignore[attr-defined]
    trainer.train()
    assert _alarms(trainer) == []
    assert not tiny.same(before, tiny.weights(trainer.reference.module))  # type: ignore[attr-defined]


def test_displacement(build: Build) -> None:
    """Both answers of the data set's pairs losing more than a nat is reported; a large beta and tiny steps are not."""
    options = {"max_steps": 6, "data": _almost_equal(), "max_completion_length": 64}
    trainer = build(learning_rate=5e-2, beta=0.05, **options)
    trainer.train()
    last = trainer.state.log_history[-2]
    assert last["rewards/chosen"] / 0.05 < -1
    assert last["rewards/rejected"] / 0.05 < -1
    assert "likelihood_displacement" in {alarm["alarm"] for alarm in _alarms(trainer)}
    calm = build(out="calm", learning_rate=1e-5, **options)
    calm.train()
    assert _alarms(calm) == []


def _almost_equal() -> list[dict[str, str]]:
    """Answers that share nearly all their text, where pushing one down pushes both down."""
    return [
        {"prompt": f"question {i}", "chosen": f"{tiny.SENTENCES[i % 3]} a", "rejected": f"{tiny.SENTENCES[i % 3]} b"}
        for i in range(24)
    ]


class SetEos(TrainerCallback):
    """Makes answers end later (or as before) from step 3 on."""

    def __init__(self, logit: float) -> None:
        self.logit = logit

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            tiny.favor_eos(kwargs["model"], self.logit)


@pytest.mark.parametrize(("logit", "alarms"), [(-20.0, ["length_drift"] * 2), (6.0, [])])
def test_length_drift(build: Build, logit: float, alarms: list[str]) -> None:
    """Answers that grow past 1.5 times their first length are reported, at each log with enough of them."""
    options = {"method": "online-dpo", "max_steps": 4, "learning_rate": 0.0, "per_device_train_batch_size": 32}
    trainer = build(callbacks=[SetEos(logit)], data=tiny.preferences(128), **options)
    tiny.favor_eos(trainer.model, 6.0)
    trainer.train()
    lengths = [log["completions/mean_length"] for log in trainer.state.log_history if "loss" in log]
    assert (lengths[-1] / lengths[0] > 1.5) is bool(alarms)
    assert [alarm["alarm"] for alarm in _alarms(trainer)] == alarms


def test_a_few_answers_are_no_drift() -> None:
    """Lengths are compared over 64 answers or more, however few a log holds."""
    drift = Drift()
    assert not any(drift.check({"completions/mean_length": length}, 16) for length in (10.0, 30.0, 10.0, 10.0))
    assert not any(drift.check({"completions/mean_length": length}, 16) for length in (40.0, 40.0, 40.0))
    [(name, message)] = drift.check({"completions/mean_length": 40.0}, 16)
    assert name == "length_drift"
    assert "40.0 tokens on average, 2.67 times the first 15.0" in message
    restored = Drift()
    restored.load(drift.state())
    assert restored.check({"completions/mean_length": 40.0}, 64) != []
    assert restored.check({"completions/mean_length": 15.0}, 64) == []


def test_alarm_counts_survive_a_resume(build: Build) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    first = build(**{**options, "max_steps": 2})
    first.train()
    first.alarms.sound("test", 2, "message", [1])
    first.saved_step = None
    first._save_state_now()
    resumed = build(**options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.alarms.raised == {"test": 1}
    assert [alarm["step"] for alarm in resumed.directory.read("alarms")] == [2]
