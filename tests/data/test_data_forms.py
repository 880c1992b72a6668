"""The forms of preference data, and what is refused."""

from __future__ import annotations

import pytest
from datasets import Dataset

from setsail.core import ConfigError, DataError
from setsail.data import load_preferences


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def only(rows, **kwargs):
    loaded = load_preferences(rows if isinstance(rows, list) else [rows], **kwargs)
    assert len(loaded) == 1
    return loaded[0]


def refusal(rows, **kwargs):
    with pytest.raises((DataError, ConfigError)) as caught:
        load_preferences(rows if isinstance(rows, list) else [rows], **kwargs)
    return str(caught.value)


# Explicit prompt.


def test_strings_are_kept_as_they_are():
    example = only({"prompt": " Hi \n", "chosen": " Hello", "rejected": "Go\n"})
    assert (example.prompt, example.chosen, example.rejected) == (" Hi \n", " Hello", "Go\n")
    assert example.has_pair
    assert example.p == 1.0


def test_conversation():
    prompt = [{"role": "system", "content": "Be brief."}, user("Hi.")]
    example = only({"prompt": prompt, "chosen": [bot("Hello.")], "rejected": [bot("Go.")]})
    assert example.prompt == tuple(prompt)
    assert (example.chosen, example.rejected) == ((bot("Hello."),), (bot("Go."),))


@pytest.mark.parametrize("answer", ["Hello.", bot("Hello."), [bot("Hello.")], [user("Hi."), bot("Hello.")]])
def test_answers_to_a_conversation_in_any_shape(answer):
    other = [user("Hi."), bot("Go.")] if isinstance(answer, list) and len(answer) == 2 else "Go."
    example = only({"prompt": [user("Hi.")], "chosen": answer, "rejected": other})
    assert (example.prompt, example.chosen, example.rejected) == ((user("Hi."),), (bot("Hello."),), (bot("Go."),))


def test_string_prompt_with_messages_as_answers():
    example = only({"prompt": "Hi.", "chosen": [bot("Hello.")], "rejected": [bot("Go.")]})
    assert example.prompt == (user("Hi."),)


def test_ultrafeedback_binarized():
    row = {
        "prompt": "Hi.",
        "chosen": [user("Hi."), bot("Hello.")],
        "rejected": [user("Hi."), bot("Go.")],
        "score_chosen": 8.0,
    }
    example = only(row)
    assert (example.prompt, example.chosen, example.rejected) == ((user("Hi."),), (bot("Hello."),), (bot("Go."),))
    assert example.columns == {"score_chosen": 8.0}


def test_keys_that_arrow_adds_to_messages_are_dropped():
    tool = {"role": "tool", "content": "4", "name": "sum"}
    rows = [
        {"prompt": [user("2+2?"), {**bot(None), "tool_calls": [{"name": "sum"}]}, tool], "chosen": "4", "rejected": "5"}
    ]
    example = only(Dataset.from_list(rows).to_list())
    assert example.prompt[0] == user("2+2?")
    assert example.prompt[2] == tool


def test_alpaca_columns():
    row = {"instruction": "Add.", "input": "1 and 1", "chosen": "2", "rejected": "3", "output": "2"}
    example = only(row)
    assert example.prompt == "Add.\n\n1 and 1"
    assert example.columns == {"output": "2"}
    assert only({**row, "input": ""}).prompt == "Add."


def test_p():
    rows = [{"prompt": str(i), "chosen": "a", "rejected": "b", "p": p} for i, p in enumerate([0, 0.3, 1, None])]
    loaded = load_preferences(rows, max_faulty=0.25)
    # An empty p is a missing preference, not a certain one.
    assert [example.p for example in loaded] == [0.0, 0.3, 1.0]
    assert loaded.report.faults["no preference (p is empty)"].first_rows == (4,)
    assert all("p" not in example.columns for example in loaded)


# Implicit prompt.


def test_conversations_that_share_a_prefix():
    shared = [user("Hi."), bot("Hello."), user("1+1?")]
    example = only({"chosen": [*shared, bot("2")], "rejected": [*shared, bot("3")]})
    assert (example.prompt, example.chosen, example.rejected) == (tuple(shared), (bot("2"),), (bot("3"),))


def test_shared_assistant_turns_belong_to_the_answer():
    sides = {"chosen": [user("Hi."), bot("Well,"), bot("hello.")], "rejected": [user("Hi."), bot("Well,"), bot("go.")]}
    example = only(sides)
    assert example.prompt == (user("Hi."),)
    assert example.chosen == (bot("Well,"), bot("hello."))


HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Sum?\n\nAssistant:"


def test_dialogues():
    example = only({"chosen": f"{HH} 2", "rejected": f"{HH} It is three."})
    assert (example.prompt, example.chosen, example.rejected) == (HH, " 2", " It is three.")


def test_dialogue_answers_with_a_common_beginning_are_not_cut_inside():
    example = only({"chosen": f"{HH} The sum is 2", "rejected": f"{HH} The sum is 3"})
    assert (example.chosen, example.rejected) == (" The sum is 2", " The sum is 3")


def test_each_dialogue_is_cut_by_itself():
    """The rejected answer holds a further assistant turn: an offset taken from the other side would cut it wrongly."""
    example = only({"chosen": f"{HH} 2", "rejected": f"{HH} Wait.\n\nAssistant: 3"})
    assert (example.prompt, example.chosen, example.rejected) == (HH, " 2", " Wait.\n\nAssistant: 3")
    swapped = only({"chosen": f"{HH} Wait.\n\nAssistant: 3", "rejected": f"{HH} 2"})
    assert (swapped.prompt, swapped.chosen, swapped.rejected) == (HH, " Wait.\n\nAssistant: 3", " 2")


def test_dialogues_that_differ_before_the_answer():
    other = HH.replace("Sum?", "Product?")
    assert "chosen and rejected answer different prompts in row 1" in refusal(
        {"chosen": f"{HH} 2", "rejected": f"{other} 1"}
    )


def test_dialogue_that_ends_with_the_human():
    message = refusal({"chosen": f"{HH} 2\n\nHuman: Thanks.", "rejected": f"{HH} 3"})
    assert "no assistant turn at the end in row 1" in message


def test_dialogue_without_an_opening_line_end():
    example = only({"chosen": "Human: Hi.\n\nAssistant: a", "rejected": "Human: Hi.\n\nAssistant: b"})
    assert example.prompt == "Human: Hi.\n\nAssistant:"


def test_conversations_that_share_nothing():
    rows = {"chosen": [user("Hi."), bot("a")], "rejected": [user("Ho."), bot("b")]}
    assert "chosen and rejected answer different prompts in row 1" in refusal(rows)


def test_strings_without_a_prompt():
    message = refusal({"question": "1+1?", "chosen": "2", "rejected": "3"})
    assert "no prompt. Columns found: question, chosen, rejected." in message
    assert 'columns={"prompt": "its name"}' in message


# Scored answers.


@pytest.mark.parametrize("text", ["text", "response", "content"])
@pytest.mark.parametrize("score", ["score", "overall_score", "rating"])
@pytest.mark.parametrize("column", ["responses", "completions"])
def test_scored_answers(text, score, column):
    answers = [{text: t, score: s, "model": "m"} for t, s in (("b", 2), ("d", 4.5), ("a", "1"), ("none", None))]
    example = only({"instruction": "Best?", column: answers, "source": "x"})
    assert (example.prompt, example.chosen, example.rejected) == ("Best?", "d", "a")
    assert example.columns["source"] == "x"
    assert example.columns["responses"][0] == {"text": "b", "score": 2.0, "model": "m"}
    assert [answer["score"] for answer in example.columns["responses"]] == [2.0, 4.5, 1.0, None]


def test_scores_beside_the_answers():
    example = only({"prompt": "Best?", "responses": ["a", "b", "c"], "scores": [0.1, 0.9, 0.5]})
    assert (example.chosen, example.rejected) == ("b", "a")


def test_all_pairs():
    rows = [
        {"prompt": "One?", "responses": ["a", "b", "c"], "scores": [1, 3, 3]},
        {"prompt": "Two?", "responses": ["a", "b"], "scores": [2, 1]},
    ]
    loaded = load_preferences(rows, pairs="all")
    assert [(e.row_id, e.source_row, e.chosen, e.rejected) for e in loaded] == [
        (0, 0, "b", "a"),
        (1, 0, "c", "a"),
        (2, 1, "a", "b"),
    ]
    assert loaded.report.usable == 2
    assert loaded.report.notes == ("1 pairs of answers with equal scores or equal texts are left out",)


def test_scored_answers_to_a_conversation():
    example = only({"prompt": [user("Hi.")], "responses": ["a", "b"], "scores": [1, 2]})
    assert (example.prompt, example.chosen) == ((user("Hi."),), (bot("b"),))


def test_ties_and_single_scores_are_counted():
    rows = [{"prompt": str(i), "responses": ["a", "b"], "scores": [0, 1]} for i in range(8)]
    rows += [
        {"prompt": "t", "responses": ["a", "b"], "scores": [1, 1]},
        {"prompt": "s", "responses": ["a", "b"], "scores": [1, None]},
    ]
    faults = load_preferences(rows).report.faults
    assert faults["tie between the scored answers"].first_rows == (9,)
    assert faults["fewer than two scored answers"].first_rows == (10,)


def test_unknown_pairing():
    row = {"prompt": "x", "responses": ["a", "b"], "scores": [1, 2]}
    assert "pairs='best-wurst' is not one of best-worst, all; did you mean 'best-worst'?" in refusal(
        row, pairs="best-wurst"
    )


def test_answers_without_scores():
    message = refusal({"prompt": "x", "responses": ["a", "b"]})
    assert "several answers a prompt, but no scores to compare them by" in message
    assert only({"prompt": "x", "responses": ["a", "b"]}, needs_pairs=False).columns == {"responses": ["a", "b"]}


def test_scored_answers_of_another_shape():
    rows = {"prompt": "x", "responses": [{"words": "a", "score": 1}, {"words": "b", "score": 2}]}
    assert "row 1: column 'responses' holds answers with the keys words, score" in refusal(rows)
    rows = {"prompt": "x", "responses": ["a", "b"], "scores": [1]}
    assert "row 1: column 'responses' holds 2 answers and there are 1 scores beside it" in refusal(rows)


# Prompts only.


@pytest.mark.parametrize(
    "row", [{"prompt": "Hi."}, {"instruction": "Hi."}, {"messages": [user("Hi.")]}, {"prompt": [user("Hi.")]}]
)
def test_prompts(row):
    example = only(row, needs_pairs=False)
    assert example.prompt in ("Hi.", (user("Hi."),))
    assert not example.has_pair
    message = refusal(row)
    assert "prompts without answers to compare" in message
    assert "Only purely online methods" in message


def test_pairs_are_read_where_they_are_there():
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "chosen": "e", "rejected": "e"}]
    loaded = load_preferences(rows, needs_pairs=False)
    assert [example.has_pair for example in loaded] == [True, False]
    assert loaded.report.faults["chosen equal to rejected"].total == 1


def test_messages_that_end_with_the_assistant():
    rows = [{"messages": [user("Hi."), bot("Hello.")]}]
    assert "prompt ends with an assistant turn in row 1" in refusal(rows, needs_pairs=False)


def test_unpaired_answers_where_pairs_are_needed():
    row = {"prompt": "x", "completion": "y", "label": True}
    message = refusal(row)
    assert "unpaired answers (prompt, completion, label), where pairs are needed." in message
    assert "methods that learn from labeled single answers (needs='singles')" in message
    assert "Supported here are pairs (prompt, chosen, rejected) and several scored answers" in message
    assert only(row, needs_pairs=False).columns == {"completion": "y", "label": True}


# Columns.


def test_mapping():
    row = {"question": "1+1?", "good": "2", "bad": "3", "sure": 0.9, "prompt": "another"}
    mapping = {"prompt": "question", "chosen": "good", "rejected": "bad", "p": "sure"}
    example = only(row, columns=mapping)
    assert (example.prompt, example.chosen, example.rejected, example.p) == ("1+1?", "2", "3", 0.9)
    assert example.columns == {}


def test_mapping_to_a_column_that_is_not_there():
    message = refusal({"question": "a", "chosen": "b", "rejected": "c"}, columns={"prompt": "qestion"})
    assert "takes 'prompt' from a column 'qestion' that the data do not have" in message
    assert "Columns found: question, chosen, rejected; did you mean 'question'?" in message


def test_mapping_the_wrong_way_round():
    message = refusal({"question": "a"}, columns={"question": "prompt"})
    assert "your column second: columns={'prompt': 'question'}" in message


def test_mapping_of_an_unknown_part():
    assert "a part 'chosn' that does not exist" in (message := refusal({"a": "b"}, columns={"chosn": "a"}))
    assert "did you mean 'chosen'?" in message


def test_misnamed_answer():
    message = refusal({"prompt": "a", "chosen": "b", "rejectd": "c"})
    assert "no column 'rejected'. Columns found: prompt, chosen, rejectd; did you mean 'rejectd'? Expected" in message


def test_misnamed_prompt():
    message = refusal({"promt": "a", "good": "b"})
    assert "no column that can be the prompt. Columns found: promt, good." in message
    assert "For 'prompt'; did you mean 'promt'?" in message
    assert '{"prompt": "...", "chosen": "...", "rejected": "..."}' in message


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), (1.5, "float"), (b"x", "bytes")])
def test_wrong_type(value, kind):
    message = refusal(
        [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": value, "rejected": "c"}]
    )
    assert f"row 2: column 'chosen' holds a {kind} where a string or a list of messages" in message
    assert "Columns found: prompt, chosen, rejected." in message


def test_messages_of_another_shape():
    message = refusal({"prompt": [{"from": "human", "value": "Hi."}], "chosen": "a", "rejected": "b"})
    assert "row 1: column 'prompt' holds a list whose items are not messages" in message
    assert "one of them is the keys from, value" in message
