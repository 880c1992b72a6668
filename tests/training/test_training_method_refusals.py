"""What users of the newer methods meet when something is missing or does not fit, and what they are told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import PreTrainedTokenizerFast, PrinterCallback

from setsail import SailTrainer
from setsail.core import ConfigError, DataError

PROMPTS = [{"prompt": row["prompt"], "number": row["number"]} for row in tiny.preferences(12)]


@pytest.fixture(scope="module")
def second_path(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    path = str(tmp_path_factory.mktemp("second") / "model")
    tiny.perturbed(tiny.llama(len(tokenizer)), scale=0.02).save_pretrained(path)
    return path


def test_a_method_without_its_labeler(model_path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"xpo needs a labeler for its route 'online'.*'self' for the policy's own"):
        SailTrainer(model_path, args=tiny.config(tmp_path, method="xpo"), train_dataset=tiny.preferences(4))


@pytest.mark.parametrize(
    ("method", "rows", "words"),
    [
        ("spin", PROMPTS, "prompts without answers to learn from"),
        ("selm", PROMPTS, "prompts without answers to compare"),
        ("dice", PROMPTS, "prompts without answers to compare"),
        ("selm", [{"prompt": "p", "chosen": "c"}], "no column 'rejected'"),
    ],
)
def test_answers_that_a_method_needs_are_missed_at_once(build: Build, method: str, rows: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        build(method=method, data=rows, model="no such model", processing_class=tiny.tokenizer())


@pytest.mark.parametrize("name", ["chosen", "completion"])
def test_spin_learns_from_good_answers_alone(build: Build, tmp_path: Path, name: str) -> None:
    """A supervised set, prompt and completion, is all it needs: the answers of the data set always win."""
    data = [{"prompt": row["prompt"], name: row["chosen"]} for row in tiny.preferences(12)]
    trainer = build(
        data=data, eval_dataset=data[:3], **tiny.shortened("spin"), per_device_train_batch_size=4, learning_rate=1e-3,
        max_steps=4,
    )  # fmt: skip
    trainer.train()
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    assert len(records) == 16
    assert all(record["origins"] == ["dataset", "policy"] and record["p"] == 1.0 for record in records)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert logs[-1]["rewards/margins"] > 0
    assert "eval_loss" not in trainer.evaluate()


def test_spin_reads_the_chosen_answers_of_pairs(build: Build) -> None:
    """The rejected ones are not looked at: with or without them it is the same run."""
    weights = []
    for columns in (("prompt", "chosen", "rejected"), ("prompt", "chosen")):
        data = [{name: row[name] for name in columns} for row in tiny.preferences(12)]
        trainer = build(data=data, out=str(len(columns)), max_steps=2, **tiny.shortened("spin"))
        trainer.train()
        weights.append(tiny.weights(trainer.model))
    assert tiny.same(*weights)


# The reference of two models.


def test_a_soup_without_its_second_model(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"average of two models fine-tuned from one base.*--soup_model DIR"):
        build(method="salsa")


def test_a_second_model_where_nothing_is_averaged(build: Build, second_path: str) -> None:
    with pytest.raises(ConfigError, match=r"soup_model is for methods whose reference .* and online-dpo is none"):
        build(method="online-dpo", soup_model=second_path)


def test_a_second_model_of_another_architecture(build: Build, tokenizer: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "wide")
    tiny.llama(len(tokenizer), hidden_size=16).save_pretrained(path)
    with pytest.raises(ConfigError, match=r"cannot be averaged with the policy: .* model 2 has head_dim=4"):
        build(method="salsa", soup_model=path)


def test_a_soup_takes_no_reference_and_no_adapter(build: Build, second_path: str, moved_path: str) -> None:
    from peft import LoraConfig

    with pytest.raises(ConfigError, match="builds its reference itself; leave out ref_model"):
        build(method="salsa", soup_model=second_path, ref_model=moved_path)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    with pytest.raises(ConfigError, match="averages whole models, but this policy is an adapter"):
        build(method="salsa", soup_model=second_path, peft_config=lora)


def test_the_soup_is_the_average_and_stays_it(build: Build, second_path: str, model_path: str) -> None:
    from transformers import AutoModelForCausalLM

    trainer = build(method="salsa", soup_model=second_path, max_steps=3)
    trainer.train()
    first, second = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (model_path, second_path))
    held = trainer.reference.module.state_dict()  # type: ignore[attr-defined]
    assert held.keys() == first.keys()
    assert all(torch.equal(held[name], 0.5 * first[name] + 0.5 * second[name]) for name in first)


# Look-ahead steps.


def test_an_odd_number_of_steps_is_warned_of_and_taken_back(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    """After five steps the policy is what it was after four."""
    options = {"method": "egpo", "learning_rate": 1e-3}
    four = build(out="four", max_steps=4, **options)
    with caplog.at_level(logging.WARNING, logger="setsail"):
        four.train()
        assert not caplog.records
        five = build(out="five", max_steps=5, **options)
        five.train()
    assert "the run has 5 optimizer steps, and method egpo takes them in twos" in caplog.records[0].getMessage()
    assert tiny.same(tiny.weights(four.model), tiny.weights(five.model))


def test_a_best_checkpoint_that_was_loaded_is_kept(build: Build) -> None:
    """Taking back the last look-ahead must not undo what load_best_model_at_end loaded."""
    trainer = build(
        method="egpo", max_steps=5, eval_dataset=tiny.preferences(4), eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=2, load_best_model_at_end=True, metric_for_best_model="eval_kl_k3",
        greater_is_better=False, learning_rate=1e-3,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    best = type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint)
    assert tiny.same(tiny.weights(best), tiny.weights(trainer.model))


@pytest.mark.parametrize("steps", [2, 4])
def test_look_ahead_steps_do_not_depend_on_accumulation(build: Build, steps: int) -> None:
    """The snapshot is one a step, not one a micro-batch."""
    weights = []
    for size, parts in ((4, 1), (2, 2), (1, 4)):
        trainer = build(
            out=f"{size}", method="egpo", per_device_train_batch_size=size, gradient_accumulation_steps=parts,
            max_steps=steps, learning_rate=1e-2, optim="sgd",
        )  # fmt: skip
        start = tiny.weights(trainer.model)
        trainer.train()
        weights.append(tiny.weights(trainer.model))
        assert tiny.relative_difference(start, weights[-1]) > 1e-4
    for other in weights[1:]:
        moved = {name: weights[0][name] - start[name] for name in start}
        assert tiny.relative_difference(moved, {name: other[name] - start[name] for name in start}) < 1e-3


# Settings that have no meaning for a method.


def test_a_number_of_answers_that_a_method_fixes_itself(build: Build) -> None:
    with pytest.raises(ConfigError, match="num_generations=4 changes nothing: method xpo says itself how many answers"):
        build(method="xpo", num_generations=4)


def test_labels_of_a_reference_that_does_not_move(build: Build) -> None:
    with pytest.raises(ConfigError, match="dice learns from what its reference took over at its last move"):
        build(method="dice", sync_ref_model=False)


def test_an_opponent_keeps_step_with_the_reference(build: Build) -> None:
    method = build(method="dice", ref_model_sync_steps=3, staleness_limit=2).method
    assert method.opponent is not None
    assert (method.reference.steps, method.opponent.steps) == (3, 3)
    assert "reference" in method.modified
