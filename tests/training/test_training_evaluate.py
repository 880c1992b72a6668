"""evaluate(): its numbers by hand, and when it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import AutoModelForCausalLM

from setsail.core import ConfigError

BETA = 0.2


def _log_prob(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    """Sum of the answer's token log-probs, one unpadded sequence at a time, in float64."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        table = model(input_ids=ids).logits.double().log_softmax(-1)[0]
    return sum(float(table[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


def test_metrics_by_hand(build: Build, model_path: str, moved_path: str, tokenizer: Any) -> None:
    held_out = tiny.preferences(5)
    trainer = build(
        method="sail-dpr", model=moved_path, ref_model=model_path, eval_dataset=held_out, beta=BETA, eval_generations=3,
        max_completion_length=16,
    )  # fmt: skip
    found = trainer.evaluate()
    policy, reference = (AutoModelForCausalLM.from_pretrained(each) for each in (moved_path, model_path))
    rewards = []
    for row in trainer.eval_dataset:
        sides = [row.chosen.token_ids, row.rejected.token_ids]
        rewards.append(
            [BETA * (_log_prob(policy, row.prompt.token_ids, ids) - _log_prob(reference, row.prompt.token_ids, ids))
             for ids in sides]
        )  # fmt: skip
    margins = [chosen - rejected for chosen, rejected in rewards]
    assert found["eval_loss"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 5, abs=1e-5)
    assert found["eval_rewards/chosen"] == pytest.approx(sum(each[0] for each in rewards) / 5, abs=1e-5)
    assert found["eval_rewards/rejected"] == pytest.approx(sum(each[1] for each in rewards) / 5, abs=1e-5)
    assert found["eval_rewards/margins"] == pytest.approx(sum(margins) / 5, abs=1e-5)
    assert found["eval_rewards/accuracies"] == sum(m > 0 for m in margins) / 5
    groups = trainer.engine.generate(
        [row.prompt for row in trainer.eval_dataset][:3],
        n=1,
        sampling=trainer.args.sampling,
        streams=[("evaluate", i) for i in range(3)],
        seed=3,
        policy_version=0,
    )
    answers = [group.completions[0] for group in groups]
    gaps = [
        _log_prob(policy, group.prompt.token_ids, answer.token_ids)
        - _log_prob(reference, group.prompt.token_ids, answer.token_ids)
        for group, answer in zip(groups, answers, strict=True)
    ]
    assert found["eval_kl_k1"] == pytest.approx(sum(gaps) / 3, abs=1e-4)
    assert found["eval_completions/mean_length"] == sum(answer.length for answer in answers) / 3
    assert found["eval_completions/clipped_ratio"] == sum(not answer.finished for answer in answers) / 3
    scores = tiny.reward([], [answer.text for answer in answers])
    assert found["eval_score_by_training_labeler"] == pytest.approx(sum(scores) / 3, abs=1e-9)
    assert found["eval_kl_k3"] >= 0


def test_an_untrained_policy_is_half_right(build: Build) -> None:
    found = build(eval_dataset=tiny.preferences(4)).evaluate()
    assert found["eval_rewards/accuracies"] == 0.5
    assert found["eval_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert found["eval_kl_k1"] == pytest.approx(0.0, abs=1e-5)


def test_during_training(build: Build, tmp_path: Path) -> None:
    """eval_strategy="steps" evaluates at its steps, writes the lines, and disturbs neither weights nor mode."""
    quiet = build(out="quiet", method="sail-dpp", max_steps=4)
    quiet.train()
    watched = build(
        out="watched", method="sail-dpp", max_steps=4, eval_dataset=tiny.preferences(5), eval_strategy="steps",
        eval_steps=2, eval_on_start=True,
    )  # fmt: skip
    watched.train()
    assert tiny.same(tiny.weights(quiet.model), tiny.weights(watched.model))
    evaluated = [line for line in tiny.lines(tmp_path / "watched" / "metrics.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in evaluated] == [0, 2, 4]
    assert len({line["eval_loss"] for line in evaluated}) == 3


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_in_its_mode(build: Build, training: bool) -> None:
    trainer = build(eval_dataset=tiny.preferences(2))
    trainer.model.train(training)
    trainer.evaluate()
    assert trainer.model.training is training


def test_prompts_alone(build: Build) -> None:
    """Rows without answers give what drawn answers say, and nothing about pairs."""
    prompts = [{"prompt": row["prompt"]} for row in tiny.preferences(5)]
    found = build(method="online-dpo", data=prompts, eval_dataset=prompts, eval_generations=4).evaluate()
    assert {"eval_kl_k1", "eval_completions/mean_length", "eval_score_by_training_labeler"} <= set(found)
    assert not [name for name in found if "rewards" in name or name == "eval_loss"]


def test_offline_methods_take_held_out_prompts_too(build: Build) -> None:
    prompts = [{"prompt": row["prompt"]} for row in tiny.preferences(5)]
    assert "eval_kl_k3" in build(method="dpo", eval_dataset=prompts).evaluate()


def test_draws_are_the_same_each_time(build: Build) -> None:
    trainer = build(eval_dataset=tiny.preferences(5))
    first, second = trainer.evaluate(), trainer.evaluate()
    assert {**first, "eval_runtime": 0} == {**second, "eval_runtime": 0}


def test_another_data_set_and_prefix(build: Build) -> None:
    trainer = build(eval_dataset=tiny.preferences(5))
    found = trainer.evaluate(tiny.preferences(2), metric_key_prefix="other")
    assert "other_loss" in found
    assert trainer.state.log_history[-1]["other_loss"] == found["other_loss"]


def test_nothing_to_evaluate_on(build: Build) -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        build().evaluate()
