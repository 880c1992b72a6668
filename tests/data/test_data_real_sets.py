"""Two real sets, where they lie beside the checkout. Nothing of their contents is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from setsail.data import RowTokenizer, TokenizedPreferences, eos_token_ids, load_preferences, split_by_prompt

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HH = SHARED / "hh-rlhf" / "harmless-base-test.jsonl.gz"
ALPACA = SHARED / "alpaca-eval" / "responses.jsonl.gz"

needs_hh = pytest.mark.skipif(not HH.exists(), reason="HH-RLHF does not lie beside the checkout")
needs_alpaca = pytest.mark.skipif(not ALPACA.exists(), reason="the AlpacaEval answers do not lie beside the checkout")


@needs_hh
def test_hh():
    loaded = load_preferences(HH)
    report = loaded.report
    assert (report.rows, report.usable) == (2312, 2308)
    assert {kind: count.total for kind, count in report.faults.items()} == {"empty answer": 4}
    sound = [
        example.prompt.startswith("\n\nHuman:")
        and example.prompt.endswith("\n\nAssistant:")
        and "\n\nHuman:" not in example.chosen + example.rejected
        for example in loaded
    ]
    assert all(sound)
    several = sum("\n\nAssistant:" in example.chosen + example.rejected for example in loaded)
    assert several == 5


@needs_hh
def test_hh_split_and_tokenized(llama):
    train, held_out = split_by_prompt(load_preferences(HH, limit=400), 0.1, seed=0)
    assert not {example.prompt for example in train} & {example.prompt for example in held_out}
    of = RowTokenizer(llama, max_prompt_length=800, max_completion_length=400, eos_token_ids=eos_token_ids(llama))
    rows = TokenizedPreferences(held_out, of)
    matches = [
        row.chosen.text == held_out[i].chosen for i, row in enumerate(TokenizedPreferences(held_out, unlimited(llama)))
    ]
    assert all(matches)
    assert len(rows) + rows.counts["dropped_long_prompts"] == len(held_out)
    assert rows.lengths[:, 0].max() <= 800


def unlimited(tokenizer):
    return RowTokenizer(
        tokenizer, max_prompt_length=None, max_completion_length=None, eos_token_ids=eos_token_ids(tokenizer)
    )


@needs_alpaca
def test_alpaca():
    loaded = load_preferences(ALPACA)
    assert (len(loaded), loaded.report.prompts, loaded.report.faults) == (805, 805, {})
    for example in loaded:
        scores = [answer["score"] for answer in example.columns["responses"]]
        assert len(scores) == 12
        texts = {answer["text"]: answer["score"] for answer in example.columns["responses"]}
        assert texts[example.chosen] == max(scores)


@needs_alpaca
def test_alpaca_prompts_alone():
    loaded = load_preferences(ALPACA, columns={"prompt": "prompt"}, needs_pairs=False)
    assert len(loaded) == 805
