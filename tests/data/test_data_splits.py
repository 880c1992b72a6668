"""Held-out prompts are never trained on, whatever the order of the rows."""

from __future__ import annotations

import random

import pytest

from setsail.core import ConfigError, DataError
from setsail.data import load_preferences, split_by_prompt


def rows(count, repeat=1):
    return [
        {"prompt": f"{i}?" + " " * j, "chosen": f"yes {j}", "rejected": "no"}
        for i in range(count)
        for j in range(repeat)
    ]


def prompts(side):
    return {example.prompt.strip() for example in side}


def test_a_prompt_lies_on_one_side():
    train, held_out = split_by_prompt(load_preferences(rows(50, repeat=3)), 0.2, seed=1)
    assert len(prompts(held_out)) == 10
    assert len(held_out) == 30
    assert len(train) == 120
    assert not prompts(train) & prompts(held_out)


def test_order_and_repetition_play_no_part():
    data = rows(40, repeat=2)
    shuffled = random.Random(0).sample(data, len(data))
    held_out = [
        prompts(split_by_prompt(load_preferences(some), 0.25, seed=3)[1]) for some in (data, shuffled, rows(40))
    ]
    assert held_out[0] == held_out[1] == held_out[2]


def test_seed_decides():
    data = load_preferences(rows(40))
    first, again, other = (prompts(split_by_prompt(data, 0.25, seed=seed)[1]) for seed in (0, 0, 1))
    assert first == again != other


def test_row_order_and_ids_are_kept():
    train, held_out = split_by_prompt(load_preferences(rows(20)), 0.3, seed=0)
    ids = [example.row_id for example in train], [example.row_id for example in held_out]
    assert [sorted(side) for side in ids] == list(ids)
    assert sorted(ids[0] + ids[1]) == list(range(20))
    assert held_out.name == "dataset (list), held out"
    assert held_out.report.rows == 6


def test_conversations():
    data = [
        {"prompt": [{"role": "user", "content": f"{i % 5}?"}], "chosen": "a", "rejected": f"b{i}"} for i in range(10)
    ]
    train, held_out = split_by_prompt(load_preferences(data), 0.2, seed=0)
    assert (len(train), len(held_out)) == (8, 2)
    assert held_out[0].prompt == held_out[1].prompt


def test_nothing_and_too_much_held_out():
    data = load_preferences(rows(3))
    assert [len(side) for side in split_by_prompt(data, 0.0, seed=0)] == [3, 0]
    assert [len(side) for side in split_by_prompt(data, 0.01, seed=0)] == [2, 1]
    with pytest.raises(ConfigError, match=r"held_out_fraction=1.0 is a share of the prompts: it must lie in \[0, 1\)"):
        split_by_prompt(data, 1.0, seed=0)
    with pytest.raises(DataError, match="1 distinct prompt cannot be split"):
        split_by_prompt(load_preferences(rows(1)), 0.1, seed=0)
