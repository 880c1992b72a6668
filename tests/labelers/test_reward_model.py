"""The reward model: the same score however it is batched, padded or loaded; nothing random, nothing unsafe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from setsail.core import ConfigError
from setsail.labelers import RewardModel

from .conftest import group_of

TEXTS = ("a", "bb is longer", "", "ccc", "a rather long answer, to have some padding", "dd")


def direct(model: Any, ids: list[int]) -> float:
    """The score of one text, as a model card would compute it."""
    with torch.no_grad():
        return float(model.eval()(input_ids=torch.tensor([ids])).logits[0, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
@pytest.mark.parametrize("pad", ["model and tokenizer", "tokenizer", "nobody", "minus one"])
def test_batched_scores_equal_single_scores(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any], batch_size: int, pad: str
) -> None:
    declared = {"model and tokenizer": {"pad_token_id": 2}, "minus one": {"pad_token_id": -1}}
    model = make_model(**declared.get(pad, {}))
    tokenizer = make_tokenizer(pad="tokenizer" in pad)
    labeler = RewardModel(model, tokenizer=tokenizer, batch_size=batch_size)
    groups = [group_of(*TEXTS, prompt="question: "), group_of("x", "y", prompt="other: ")]
    for group, judgement in zip(groups, labeler.label(groups), strict=True):
        expected = [direct(model, tokenizer(group.prompt.text + c.text)["input_ids"]) for c in group.completions]
        assert judgement.scores == pytest.approx(expected, abs=1e-5)
        gap = torch.tensor(expected[0] - expected[1])
        assert judgement.preference[0][1] == pytest.approx(float(gap.sigmoid()), abs=1e-5)
    assert max(judgement.scores) - min(judgement.scores) > 0.1  # the model does tell texts apart


def test_a_final_eos_is_scored_where_no_padding_token_is_declared(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    """Padding with EOS would make the model read these scores one token too early."""
    model, tokenizer = make_model(), make_tokenizer(pad=False)
    texts = ("a</s>", "bbbb</s>", "c")
    [judgement] = RewardModel(model, tokenizer=tokenizer).label([group_of(*texts, prompt="")])
    expected = [direct(model, tokenizer(text)["input_ids"]) for text in texts]
    assert judgement.scores == pytest.approx(expected, abs=1e-5)


def test_the_tokenizers_padding_side_is_irrelevant(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    scores = [
        RewardModel(make_model(), tokenizer=make_tokenizer(padding_side=side)).label([group_of(*TEXTS)])[0].scores
        for side in ("left", "right")
    ]
    assert scores[0] == scores[1]


def test_equal_texts_tie_exactly(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    labeler = RewardModel(make_model(), tokenizer=make_tokenizer(), batch_size=2, hard=True)
    [judgement] = labeler.label([group_of("same", "a much longer one in between", "same")])
    assert judgement.preference[0][2] == 0.5
    assert labeler.scored == 3


def test_the_chat_template_of_the_reward_model_is_used(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    model, tokenizer = make_model(), make_tokenizer(chat=True)
    labeler = RewardModel(model, tokenizer=tokenizer)
    system = ({"role": "system", "content": "S"}, {"role": "user", "content": "Hi"})
    plain, talk = labeler.label([group_of("yes", prompt="Hi"), group_of("yes", prompt="Hi", messages=system)])
    for judgement, text in (
        (plain, "<s>user: Hi</s><s>assistant: yes</s>"),
        (talk, "<s>system: S</s><s>user: Hi</s><s>assistant: yes</s>"),
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert judgement.scores[0] == pytest.approx(direct(model, ids), abs=1e-5)


def test_a_conversation_without_a_chat_template_is_refused(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    group = group_of("yes", messages=({"role": "user", "content": "Hi"},), row_id=12)
    with pytest.raises(ConfigError, match=r"row 12 is a conversation, .* set tokenizer\.chat_template"):
        RewardModel(make_model(), tokenizer=make_tokenizer()).label([group])


def test_long_texts_lose_their_beginning_and_are_counted(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    labeler = RewardModel(model, tokenizer=tokenizer, max_length=8)
    with caplog.at_level(logging.WARNING, logger="setsail"):
        [judgement] = labeler.label([group_of("0123456789", "short", "abcdefghijk", prompt="")])
    assert judgement.scores[0] == pytest.approx(direct(model, tokenizer("23456789")["input_ids"]), abs=1e-5)
    assert (labeler.scored, labeler.truncated) == (3, 2)
    assert len(caplog.records) == 1
    assert "row 0 has a text of 10 tokens, cut to its last 8" in caplog.text


def test_truncation_keeps_a_leading_bos(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    model, tokenizer = make_model(), make_tokenizer(chat=True)
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m['content'] }}{% endfor %}"
    labeler = RewardModel(model, tokenizer=tokenizer, max_length=4)
    [judgement] = labeler.label([group_of("456789", prompt="0123")])
    ids = tokenizer("<s>789", add_special_tokens=False)["input_ids"]
    assert judgement.scores[0] == pytest.approx(direct(model, ids), abs=1e-5)


def test_the_models_positions_limit_the_length(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    assert RewardModel(make_model(), tokenizer=make_tokenizer()).max_length == 128
    assert RewardModel(make_model(), tokenizer=make_tokenizer(model_max_length=50)).max_length == 50
    with pytest.raises(ConfigError, match="between 1 and 128 tokens"):
        RewardModel(make_model(), tokenizer=make_tokenizer(), max_length=129)


def test_reversed_negates_and_hard_decides(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    plain, cost = (
        RewardModel(make_model(), tokenizer=make_tokenizer(), reversed=flag, hard=True).label([group_of("a", "b")])[0]
        for flag in (False, True)
    )
    assert cost.scores == tuple(-score for score in plain.scores)
    assert plain.preference[0][1] + cost.preference[0][1] == 1.0
    assert plain.preference[0][1] in (0.0, 1.0)


def test_the_users_model_is_left_as_it_was(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    model = make_model(attention_dropout=0.5).train()
    labeler = RewardModel(model, tokenizer=make_tokenizer())
    first, second = labeler.label([group_of(*TEXTS)]), labeler.label([group_of(*TEXTS)])
    assert first[0].scores == second[0].scores  # no dropout
    assert model.training
    assert model.config.pad_token_id is None
    assert model.config.use_cache is True
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_weights_give_finite_float32_scores(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    labeler = RewardModel(make_model().to(torch.bfloat16), tokenizer=make_tokenizer())
    exact = RewardModel(make_model(), tokenizer=make_tokenizer())
    assert labeler.label([group_of(*TEXTS)])[0].scores == pytest.approx(
        exact.label([group_of(*TEXTS)])[0].scores, abs=0.2
    )


def test_a_model_that_gives_nan_is_missing(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    model = make_model()
    torch.nn.init.constant_(model.score.weight, float("nan"))
    [judgement] = RewardModel(model, tokenizer=make_tokenizer(), name="rm").label([group_of("a", "b")])
    assert judgement.scores == (None, None)
    assert "not a finite number" in judgement.reason


@pytest.fixture
def saved(tmp_path: Path, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> Path:
    """A reward model's directory."""
    make_model().save_pretrained(tmp_path / "my-rm")
    make_tokenizer().save_pretrained(tmp_path / "my-rm")
    return tmp_path / "my-rm"


def test_a_directory_gives_the_same_scores(
    saved: Path, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    labeler = RewardModel(str(saved))
    assert labeler.name == "my-rm"
    instance = RewardModel(make_model(), tokenizer=make_tokenizer())
    assert labeler.label([group_of(*TEXTS)])[0].scores == pytest.approx(
        instance.label([group_of(*TEXTS)])[0].scores, abs=1e-6
    )


def test_a_language_model_is_refused_for_its_random_output_layer(
    tmp_path: Path, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    from transformers import LlamaForCausalLM

    LlamaForCausalLM(make_model().config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no weights for score\.weight, which would be random"):
        RewardModel(tmp_path)


def test_pickled_weights_are_not_loaded(saved: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="weights that are not safetensors are not loaded"):
        RewardModel(saved)


def test_several_outputs_are_refused(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"has num_labels=3; a sequence-classification model with one output"):
        RewardModel(make_model(num_labels=3), tokenizer=make_tokenizer())


def test_an_instance_without_an_origin_needs_a_tokenizer(make_model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="pass tokenizer="):
        RewardModel(make_model())


def test_other_unusable_arguments(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        RewardModel(make_model(), tokenizer=make_tokenizer(), batch_size=0)
    with pytest.raises(ConfigError, match="got 3"):
        RewardModel(3)
