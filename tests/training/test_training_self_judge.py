"""The policy judges its own answers while it is trained: a model whose judgement is known by construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import LlamaConfig, LlamaForCausalLM

from setsail.core import Candidates, Completion, ConfigError, LabelerError

BANG = "!"
FEW: dict[str, Any] = {
    "max_completion_length": 8,
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 1e-4,
}


@torch.no_grad()
def _excited(tokenizer: Any, slope: float, positions: int = 1024) -> Any:
    """A Llama that likes what it shouts: its grade grows with the share of exclamation marks in what it reads.

    One attention layer that looks at everything alike carries that share, and the digit k gets ``slope * k`` times it.
    With slope 0 all answers are worth the same to it.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=positions, bos_token_id=None, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    [bang] = tokenizer(BANG)["input_ids"]
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    attention = model.model.layers[0].self_attn
    embedding[:, 0] = 1.0
    embedding[bang, 1] = 1.0
    attention.v_proj.weight[0, 1] = 1.0
    attention.o_proj.weight[2, 0] = 1.0
    head[bang, 0] = 1.8
    head[1, 0] = 1.0
    for digit in range(6):
        head[tokenizer(str(digit))["input_ids"][0], 2] = slope * digit
    return model


@pytest.fixture
def shouting(build: Build, tokenizer: Any) -> Callable[..., Any]:
    """``shouting(slope, **options)``: a trainer of the model above."""

    def make(slope: float = 2.0, positions: int = 1024, **options: Any) -> Any:
        model = _excited(tokenizer, slope, positions)
        given = {**FEW, **tiny.shortened("self-rewarding"), **options}
        return build(model=model, processing_class=tokenizer, **given)

    return make


def _asked(trainer: Any, *texts: str) -> Candidates:
    prompt = trainer.train_dataset[0].prompt
    return Candidates(prompt=prompt, completions=tuple(Completion(token_ids=(5,), text=text) for text in texts))


def test_the_judge_ranks_as_its_weights_say(shouting: Any) -> None:
    trainer = shouting()
    [judgement] = trainer.labeler.label([_asked(trainer, "a!!b", "abcd", "!!!!", "ab!d")])
    shouted, plain, most, once = judgement.scores
    assert plain == 2.5, "a uniform distribution over 0 to 5"
    assert most > shouted > once > plain
    assert judgement.preference[2][1] > 0.5 > judgement.preference[1][2]


def test_pairs_are_what_the_policy_prefers(shouting: Any, tmp_path: Path) -> None:
    """No labeler is given: best and worst of four by the policy's own grades, computed on its own answers."""
    trainer = shouting()
    trainer.train()
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    gaps = [record["chosen"].count(BANG) - record["rejected"].count(BANG) for record in records]
    assert len(records) >= 12
    assert min(gaps) >= 0
    assert sum(gap > 0 for gap in gaps) > len(gaps) / 2
    assert {record["labeler"] for record in records} == {"self"}
    assert all(0 <= score <= 5 for record in records for score in record["scores"])
    log = trainer.state.log_history[0]
    assert log["sail/dpr/missing"] == 0
    assert 2.5 < log["sail/dpr/score"] < 5


def test_four_equal_scores_give_no_pair(shouting: Any, tmp_path: Path) -> None:
    """A policy that likes everything alike learns nothing from itself, and nothing is missing either."""
    trainer = shouting(slope=0.0)
    before = tiny.weights(trainer.model)
    trainer.train()
    assert not (tmp_path / "run" / "pairs.jsonl").exists()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert all(log["loss"] == 0 for log in logs)
    assert [log.get("sail/dpr/missing") for log in logs] == [0, None, None, None]
    assert tiny.same(before, tiny.weights(trainer.model))


def test_the_judge_is_the_policy_of_the_moment(shouting: Any) -> None:
    """It is the model under training that grades, not the one the run began with, nor the reference."""
    trainer = shouting()
    group = _asked(trainer, "a!!b", "abcd")
    before = trainer.labeler.label([group])[0].scores
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight[:, 2] *= -1
    after = trainer.labeler.label([group])[0].scores
    assert before[0] > before[1] == 2.5 == after[1] > after[0]


def test_judging_leaves_the_policy_as_it_was(shouting: Any) -> None:
    trainer = shouting()
    trainer.model.train()
    trainer.model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    trainer.labeler.label([_asked(trainer, "a!!b", "abcd")])
    assert trainer.model.training
    assert all(torch.equal(p.grad, gradients[name]) for name, p in trainer.model.named_parameters())


def test_grades_do_not_depend_on_the_batch(build: Build, tokenizer: Any) -> None:
    """A random model, one text at a time or many: padding, batch and order change nothing that counts."""
    found = []
    for size in (1, 8):
        model = tiny.llama(len(tokenizer), max_position_embeddings=1024)
        trainer = build(
            model=model, processing_class=tokenizer, out=f"run-{size}", method="self-rewarding",
            per_device_train_batch_size=1, per_device_eval_batch_size=size,
        )  # fmt: skip
        texts = ["the boat leaves", "at noon", "please bring two tickets and a warm coat", "!", "é"]
        assert trainer.scorer.batch_size == max(size, 2)
        found.append(trainer.labeler.label([_asked(trainer, *texts)])[0].scores)
    assert found[0] == found[1]
    assert len(set(found[0])) == 5


def test_a_labeler_that_is_given_replaces_the_judge(shouting: Any, tmp_path: Path) -> None:
    def quiet(completions: Sequence[str], **rest: Any) -> list[float]:
        return [-float(text.count(BANG)) for text in completions]

    trainer = shouting(labeler=quiet)
    trainer.train()
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    assert {record["labeler"] for record in records} == {"quiet"}
    assert all(record["chosen"].count(BANG) < record["rejected"].count(BANG) for record in records)


def test_any_method_with_a_labeler_takes_the_policy_by_name(shouting: Any, tmp_path: Path) -> None:
    """Alone, decided hard, and beside a function: then the two probabilities are averaged."""
    alone = shouting(method="online-dpo", num_generations=2, staleness_limit=0, sync_ref_model=False,
                     ref_model_sync_steps=None, labeler="self", hard_labels=True, out="alone")  # fmt: skip
    alone.train()
    records = tiny.lines(tmp_path / "alone" / "pairs.jsonl")
    assert {record["labeler"] for record in records} == {"self"}
    assert {record["p"] for record in records} <= {0.5, 1.0}
    both = shouting(labeler=["self", lambda completions: [0.0] * len(completions)], out="both")
    [judgement] = both.labeler.label([_asked(both, "!!!!", "abcd")])
    [single] = alone.labeler.labeler.label([_asked(alone, "!!!!", "abcd")])
    assert single.preference[0][1] == 1.0
    graded = shouting(out="graded").labeler.label([_asked(both, "!!!!", "abcd")])[0]
    assert judgement.preference[0][1] == pytest.approx((graded.preference[0][1] + 0.5) / 2, abs=1e-12)


def test_a_model_without_room_for_the_rubric_says_so(shouting: Any) -> None:
    with pytest.raises(LabelerError, match="more than the policy reads"):
        shouting(positions=256).train()


def test_a_tokenizer_without_digits_is_refused_before_a_model_is_loaded(
    build: Build, tokenizer: Any, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    with pytest.raises(ConfigError, match="the policy cannot be its own judge"):
        build(
            method="self-rewarding", model=str(tmp_path / "no such model"), processing_class=plain,
            data=[{"prompt": "what", "chosen": "this one", "rejected": "that"}],
        )  # fmt: skip


def test_held_out_answers_are_graded_too(shouting: Any) -> None:
    trainer = shouting(eval_dataset=[{"prompt": "question"}])
    assert 0 <= trainer.evaluate()["eval_score_by_training_labeler"] <= 5


def test_with_an_adapter_the_adapted_policy_judges(shouting: Any) -> None:
    from peft import LoraConfig

    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["v_proj", "o_proj"])
    trainer = shouting(peft_config=lora)
    group = _asked(trainer, "a!!b", "abcd")
    before = trainer.labeler.label([group])[0].scores
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name and parameter.requires_grad:
                parameter.fill_(0.5)
    after = trainer.labeler.label([group])[0].scores
    assert before[0] > before[1]
    assert after != before
    with trainer.model.disable_adapter():
        assert trainer.labeler.label([group])[0].scores == before
