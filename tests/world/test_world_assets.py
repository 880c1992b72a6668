"""The shipped model, tokenizer, pairs and held-out prompts are what docs/world.md says they are."""

import gzip
import json
import math
from collections.abc import Iterator
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from setsail.world import gold_reward, held_out_path, is_held_out, model_path, pairs_path

Row = dict[str, list[dict[str, str]]]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_path()).eval()


@pytest.fixture(scope="module")
def pairs() -> list[Row]:
    with gzip.open(pairs_path(), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def held_out() -> list[Row]:
    return [json.loads(line) for line in held_out_path().read_text(encoding="utf-8").splitlines()]


def test_assets_are_small(model: PreTrainedModel) -> None:
    assets = model_path().parent
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) <= 10 * 2**20
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000


def test_model_loads_in_float32_with_its_own_end_and_pad(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert model.dtype == torch.float32
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    settings = model.generation_config
    assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "When does the bakery open?",
        "  two  spaces,\ttabs\n\nand\r\nlines ",
        "naïve café — “quotes” … ½",
        "日本語, العربية, हिन्दी, ไทย",
        "🙂👩‍👩‍👧‍👦🏳️‍🌈",
        "\u0000\u0001\ufffd\u200b",
        "".join(map(chr, range(32, 1024))),
    ],
)
def test_any_text_survives_the_tokenizer(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_chat_template_has_roles_and_a_stable_prefix(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where is the bakery?"},
        {"role": "assistant", "content": "It is on Rope Lane."},
    ]
    prompt = tokenizer.apply_chat_template(talk[:2], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(talk, tokenize=False)
    assert prompt == "<|system|>Be kind.<|user|>Where is the bakery?<|assistant|>"
    assert whole == prompt + "It is on Rope Lane.<|end|>"
    encoded = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    masked = [i for i, on in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if on]
    assert tokenizer.decode(masked) == "It is on Rope Lane.<|end|>"
    with pytest.raises(Exception, match="roles system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "?"}], tokenize=False)


def test_pairs_are_conversational_finished_and_different(pairs: list[Row]) -> None:
    assert len(pairs) == 4000
    for row in pairs:
        assert [message["role"] for key in ("prompt", "chosen", "rejected") for message in row[key]] == [
            "user",
            "assistant",
            "assistant",
        ]
        assert row["chosen"] != row["rejected"]
    assert len({row["prompt"][0]["content"] for row in pairs}) == len(pairs)


def test_labels_follow_bradley_terry(pairs: list[Row]) -> None:
    """z = (label log-likelihood - its expectation) / standard deviation, and the same for the number of upsets."""
    prompts = [row["prompt"] for row in pairs]
    chosen = gold_reward(prompts, [row["chosen"] for row in pairs])
    rejected = gold_reward(prompts, [row["rejected"] for row in pairs])
    larger = [1 / (1 + math.exp(-abs(a - b))) for a, b in zip(chosen, rejected, strict=True)]
    agree = sum((a > b) + 0.5 * (a == b) for a, b in zip(chosen, rejected, strict=True))
    variance = sum(p * (1 - p) for p, a, b in zip(larger, chosen, rejected, strict=True) if a != b)
    assert abs(agree - sum(larger)) < 4.5 * math.sqrt(variance)
    # The preference is worth learning: it agrees with the gold order clearly more often than not.
    assert 0.65 < agree / len(pairs) < 0.85


def test_held_out_prompts_are_new(pairs: list[Row], held_out: list[Row]) -> None:
    texts = {row["prompt"][0]["content"] for row in held_out}
    assert len(texts) == len(held_out) == 256
    assert texts.isdisjoint(row["prompt"][0]["content"] for row in pairs)
    assert all(is_held_out(text) for text in texts)
    assert not any(is_held_out(row["prompt"][0]["content"]) for row in pairs)


def test_sampled_answers_are_finished_and_mediocre(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: list[Row]
) -> None:
    prompts = [row["prompt"] for row in held_out[:64]]
    torch.manual_seed(0)
    inputs = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
    )
    drawn = model.generate(**inputs, max_new_tokens=64)[:, inputs["input_ids"].shape[1] :]
    finished = [tokenizer.eos_token_id in ids for ids in drawn.tolist()]
    assert fmean(finished) >= 0.95
    answers = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    assert all(len(answer.split()) >= 3 for answer in answers)
    # Mean 0.2 and standard deviation 1.2 over draws: 64 of them have a standard error of 0.15.
    assert -0.7 < fmean(gold_reward(prompts, answers)) < 1.1
