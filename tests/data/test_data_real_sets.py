"""Two real sets, where they lie beside the checkout. Nothing of their contents is shown."""

from __future__ import annotations

from collections import Counter
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


@needs_hh
def test_hh_as_singles_and_demonstrations():
    pairs = load_preferences(HH)
    singles = load_preferences(HH, needs="singles")
    assert len(singles) == 4616 == len({one.row_id for one in singles})
    assert (singles.report.labels.desirable, singles.report.labels.undesirable) == (2308, 2308)
    assert [(one.prompt, *one.answers) for one in singles if one.scores == (1.0,)] == [
        (pair.prompt, pair.chosen) for pair in pairs
    ]
    demonstrations = load_preferences(HH, needs="demonstrations")
    assert [(one.chosen, one.rejected) for one in demonstrations] == [(pair.chosen, None) for pair in pairs]
    assert {kind: count.total for kind, count in demonstrations.report.faults.items()} == {"empty answer": 4}


@needs_alpaca
def test_alpaca_as_lists():
    """Every answer of 12 models, but 22 empty ones, 67 that repeat another with its score and 5 that contradict one."""
    loaded = load_preferences(ALPACA, needs="lists")
    assert (len(loaded), loaded.report.faults) == (805, {})
    sizes = Counter(len(example.answers) for example in loaded)
    assert sizes == {12: 751, 11: 36, 10: 6, 9: 4, 8: 6, 7: 2}
    assert sum(size * count for size, count in sizes.items()) == 805 * 12 - 22 - 67 - 5
    assert loaded.report.notes == (
        "67 answers that repeat another of their row, score and all, are left out",
        "5 answers of equal text and different scores are left out",
        "22 empty answers are left out",
    )
    report = loaded.report.lists
    assert (report.fewest, report.median, report.most, report.lowest, report.highest) == (7, 12.0, 12, 0.0, 1.0)
    assert report.tied == sum(len(set(example.scores)) < len(example.scores) for example in loaded)
    other_pairs = 0
    for example, pair in zip(loaded, load_preferences(ALPACA), strict=True):
        given = {one["text"]: one["score"] for one in example.columns["responses"]}
        assert [given[answer] for answer in example.answers] == list(example.scores)
        other_pairs += (example.chosen, example.rejected) != (pair.chosen, pair.rejected)
    assert other_pairs == 1  # the worst answer of this pair contradicts itself


@needs_alpaca
def test_alpaca_as_all_pairs():
    loaded = load_preferences(ALPACA, pairs="all")
    assert len(loaded) == 49990 == len({pair.row_id for pair in loaded})
    assert loaded.report.notes == ("2,898 pairs of answers with equal scores or equal texts are left out",)


@needs_alpaca
def test_alpaca_as_singles():
    loaded = load_preferences(ALPACA, needs="singles")
    assert len(loaded) == 9566 == len({one.row_id for one in loaded})
    assert (loaded.report.labels.desirable, loaded.report.labels.undesirable) == (1678, 7888)
    assert loaded.report.labels.contradicted == 0
    train, held_out = split_by_prompt(loaded, 0.1, seed=0)
    assert not {one.prompt for one in train} & {one.prompt for one in held_out}
    assert len(train) + len(held_out) == 9566


@needs_alpaca
def test_alpaca_lists_tokenized(plain):
    lists = load_preferences(ALPACA, needs="lists", limit=40)
    rows = TokenizedPreferences(lists, unlimited(plain))
    for row, example in zip(rows, lists, strict=True):
        assert tuple(answer.text for answer in row.answers) == example.answers
        assert row.scores == example.scores
        assert row.chosen.text == example.chosen


@needs_alpaca
def test_alpaca_prompts_alone():
    loaded = load_preferences(ALPACA, columns={"prompt": "prompt"}, needs_pairs=False)
    assert len(loaded) == 805
