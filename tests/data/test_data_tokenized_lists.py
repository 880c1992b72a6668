"""Token ids of lists, single answers and demonstrations: one array, limits on each answer, rows as they were given."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from setsail.core import Completion, DataError
from setsail.data import Example, RowTokenizer, TokenizedPreferences, eos_token_ids, load_preferences


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def rows_of(tokenizer, *, prompt_limit=None, answer_limit=None, **kwargs):
    return RowTokenizer(
        tokenizer,
        max_prompt_length=prompt_limit,
        max_completion_length=answer_limit,
        eos_token_ids=eos_token_ids(tokenizer),
        **kwargs,
    )


def listed(*answers, prompt="A river?", scores=None):
    return {"prompt": prompt, "responses": list(answers), "scores": list(scores or range(len(answers)))}


@pytest.fixture
def lists():
    return load_preferences(
        [
            listed(" The Loire.", " Paris.", " The river.", prompt="Name a river in France."),
            listed(" Yes", " No", prompt="Is it?", scores=[0.75, 0.25]),
            listed(" one", " two", " three", " four", " five", prompt="What is one and one?", scores=[0, 1, 0, 0, 0.5]),
        ],
        needs="lists",
    )


def test_a_row_holds_every_answer_with_its_score(lists, llama):
    rows = TokenizedPreferences(lists, rows_of(llama))
    assert list(rows) == [rows_of(llama)(example) for example in lists]
    assert rows[-1] == rows[2]
    for row, example in zip(rows, lists, strict=True):
        assert tuple(answer.text for answer in row.answers) == example.answers
        assert row.scores == example.scores
        assert (row.chosen.text, row.rejected.text) == (example.chosen, example.rejected)
        assert row.chosen in row.answers
        assert all(answer.token_ids[-1] == llama.eos_token_id for answer in row.answers)
        assert all((answer.finished, answer.origin, answer.logp) == (True, "dataset", None) for answer in row.answers)
    assert rows.lengths.tolist() == [[len(r.prompt.token_ids), r.chosen.length, r.rejected.length] for r in rows]
    total = sum(len(row.prompt.token_ids) + sum(answer.length for answer in row.answers) for row in rows)
    assert rows._ids.dtype == np.int32
    assert len(rows._ids) == total
    assert rows.counts == {
        "examples": 3, "rows": 3, "dropped_long_prompts": 0, "cut_prompts": 0, "cut_answers": 0,
        "dropped_same_when_cut": 0, "answers_same_when_cut": 0,
    }  # fmt: skip


def test_lists_of_one_size_need_no_list_of_their_borders(lists, plain):
    assert isinstance(TokenizedPreferences(lists, rows_of(plain))._first, np.ndarray)
    same = load_preferences([listed("a", "b", "c", prompt=f"{i}?") for i in range(4)], needs="lists")
    rows = TokenizedPreferences(same, rows_of(plain))
    assert rows._first == range(0, 16, 4)
    assert [row.answers[2].text for row in rows] == ["c"] * 4


def test_pairs_take_no_more_room_than_their_ids_and_borders(plain, pairs):
    rows = TokenizedPreferences(load_preferences(pairs), rows_of(plain))
    arrays = sum(value.nbytes for value in vars(rows).values() if isinstance(value, np.ndarray))
    # A row: its index, three flags, three borders, three lengths; and one border at the end.
    assert arrays == rows._ids.nbytes + len(rows) * (8 + 3 + 24 + 24) + 8
    assert rows._first == range(0, 30, 3)
    assert rows[0].answers == rows[0].scores == ()


def test_each_answer_has_its_own_limit(plain):
    data = load_preferences([listed(" one and one is two", " one", " two")] * 2, needs="lists")
    whole = TokenizedPreferences(data, rows_of(plain))[0]
    limit = max(whole.answers[1].length, whole.answers[2].length)
    rows = TokenizedPreferences(data, rows_of(plain, answer_limit=limit))
    for row in rows:
        assert [answer.finished for answer in row.answers] == [False, True, True]
        assert row.answers[0].token_ids == whole.answers[0].token_ids[:limit]
        assert plain.eos_token_id not in row.answers[0].token_ids
        assert row.answers[1:] == whole.answers[1:]
    assert rows.counts["cut_answers"] == 2


def test_answers_that_are_the_same_when_cut(plain):
    """Of answers that the limit makes equal one stays if their scores agree, none if they do not."""
    rows = [
        listed(" the river", " the river in", " a dog", prompt="kept", scores=[3, 3, 1]),
        listed(" the river", " the river in", " a dog", " a fox", prompt="contradicted", scores=[3, 1, 2, 0]),
        listed(" the river", " the river in", " a dog", prompt="one left", scores=[3, 1, 2]),
        listed(" the river", " the river in", " a dog", " a fox", prompt="tie left", scores=[3, 1, 2, 2]),
        listed(" a dog", " a fox", prompt="untouched", scores=[1, 2]),
    ]
    data = load_preferences(rows, needs="lists")
    limit = len(plain(" the river", add_special_tokens=False)["input_ids"])
    assert limit >= len(plain(" a dog", add_special_tokens=False)["input_ids"])
    tokenized = TokenizedPreferences(data, rows_of(plain, answer_limit=limit))
    assert [row.prompt.text for row in tokenized] == ["kept", "contradicted", "untouched"]
    assert [(row.scores, row.chosen.text, row.rejected.text) for row in tokenized] == [
        ((3.0, 1.0), " the river", " a dog"),
        ((2.0, 0.0), " a dog", " a fox"),
        ((1.0, 2.0), " a fox", " a dog"),
    ]
    assert [len(row.answers) for row in tokenized] == [2, 2, 2]
    assert tokenized.counts["dropped_same_when_cut"] == 2
    assert tokenized.counts["answers_same_when_cut"] == 1 + 2
    lengths = [[len(r.prompt.token_ids), r.chosen.length, r.rejected.length] for r in tokenized]
    assert tokenized.lengths.tolist() == lengths
    copy = pickle.loads(pickle.dumps(tokenized))
    assert list(copy) == list(tokenized)


def test_a_pair_as_a_list_that_is_the_same_when_cut(plain):
    rows = [
        {"prompt": "a", "chosen": " It is two.", "rejected": " It is three.", "p": 0.3},
        {"prompt": "b", "chosen": "x", "rejected": "y", "p": 0.3},
    ]
    tokenized = TokenizedPreferences(load_preferences(rows, needs="lists"), rows_of(plain, answer_limit=1))
    assert tokenized.counts["dropped_same_when_cut"] == 1
    [row] = tokenized
    # What the data call chosen stays chosen, though it is the less likely one.
    assert (row.chosen, row.rejected, row.p) == (*row.answers, 0.3)
    assert row.scores == (0.3, 0.7)


def test_nothing_left_of_lists(plain):
    data = load_preferences([listed(" It is two.", " It is three.")], needs="lists")
    with pytest.raises(DataError, match=r"no row is left of 1: .* 1 lists are equal within max_completion_length=1"):
        TokenizedPreferences(data, rows_of(plain, answer_limit=1))


def test_single_answers(chatml):
    rows = [
        {"prompt": [user("1+1?")], "completion": [bot("2")], "label": True},
        {"prompt": [user("1+1?")], "completion": "3", "label": False},
    ]
    tokenized = TokenizedPreferences(load_preferences(rows, needs="singles"), rows_of(chatml))
    assert [row.scores for row in tokenized] == [(1.0,), (-1.0,)]
    assert [chatml.decode(row.answers[0].token_ids) for row in tokenized] == ["2<|im_end|>", "3<|im_end|>"]
    assert [answer.text for row in tokenized for answer in row.answers] == ["2", "3"]
    assert all(row.chosen is None and row.rejected is None for row in tokenized)
    assert "answers_same_when_cut" not in tokenized.counts


def test_single_answers_of_a_pair_stay_two_rows_when_cut(plain):
    data = load_preferences([{"prompt": "a", "chosen": " It is 2.", "rejected": " It is 3."}], needs="singles")
    tokenized = TokenizedPreferences(data, rows_of(plain, answer_limit=1))
    assert [(row.prompt.row_id, row.scores) for row in tokenized] == [(0, (1.0,)), (1, (-1.0,))]


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_demonstrations_tokenized(request, name):
    tokenizer = request.getfixturevalue(name)
    row = {"prompt": "1+1?", "completion": " 2"} if name == "plain" else {"messages": [user("1+1?"), bot("2")]}
    data = load_preferences([row] * 2, needs="demonstrations")
    tokenized = TokenizedPreferences(data, rows_of(tokenizer))
    assert tokenized[1] == rows_of(tokenizer)(data[1])
    assert isinstance(tokenized[0].chosen, Completion)
    assert tokenizer.decode(tokenized[0].chosen.token_ids) == (" 2<eos>" if name == "plain" else "2<|im_end|>")
    assert tokenized[0].rejected is None
    assert tokenized[0].answers == ()
    assert tokenized.lengths[0].tolist() == [len(tokenized[0].prompt.token_ids), tokenized[0].chosen.length, 0]


def test_conversations_in_a_list(chatml):
    data = load_preferences([listed("a", "b", "c", prompt=[user("Hi.")])], needs="lists")
    row = TokenizedPreferences(data, rows_of(chatml))[0]
    for answer, text in zip(row.answers, "abc", strict=True):
        whole = chatml.apply_chat_template([user("Hi."), bot(text)], tokenize=True, return_dict=False)
        ids = list(row.prompt.token_ids + answer.token_ids)
        assert ids == whole[: len(ids)]


def test_the_fingerprint_of_lists(lists, plain):
    first = TokenizedPreferences(lists, rows_of(plain)).fingerprint
    assert first == TokenizedPreferences(lists, rows_of(plain)).fingerprint
    assert first != TokenizedPreferences(lists, rows_of(plain, answer_limit=2)).fingerprint
    other = load_preferences([listed(" Yes", " No", prompt="Is it?", scores=[0.75, 0.2])], needs="lists")
    same = load_preferences([listed(" Yes", " No", prompt="Is it?", scores=[0.75, 0.25])], needs="lists")
    prints = {TokenizedPreferences(data, rows_of(plain)).fingerprint for data in (other, same)}
    assert len(prints) == 2


def test_a_list_without_some_of_its_answers():
    example = Example(row_id=0, source_row=0, prompt="x", answers=("a", "b", "c"), scores=(1.0, 3.0, 2.0))
    kept = example.only([0, 2])
    assert (kept.answers, kept.scores, kept.chosen, kept.rejected) == (("a", "c"), (1.0, 2.0), "c", "a")
    assert kept.sides == (1, 0)
    assert example.only([1]) is None
