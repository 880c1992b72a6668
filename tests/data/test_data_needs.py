"""What each form gives of each thing a method may need: pairs, lists, single answers, demonstrations, prompts."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from setsail.core import ConfigError, DataError
from setsail.data import NEEDS, check_preferences, load_preferences, split_by_prompt


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def loaded(rows, needs, **kwargs):
    return load_preferences(rows if isinstance(rows, list) else [rows], needs=needs, **kwargs)


def contents(rows, needs, **kwargs):
    return [
        (one.prompt, one.chosen, one.rejected, one.p, one.answers, one.scores) for one in loaded(rows, needs, **kwargs)
    ]


def refusal(rows, needs, **kwargs):
    with pytest.raises((DataError, ConfigError)) as caught:
        loaded(rows, needs, **kwargs)
    return str(caught.value)


PAIR = {"prompt": "1+1?", "chosen": "2", "rejected": "3"}
SCORED = {"prompt": "A river?", "responses": ["Loire", "Paris", "Rhine", "Alps"], "scores": [9, 2, 8, 1]}
LABELED = {"prompt": "1+1?", "completion": "2", "label": True}
ANSWERED = {"prompt": "1+1?", "completion": "2"}


# Saying what is needed.


def test_pairs_are_needed_where_nothing_is_said():
    assert load_preferences([PAIR]).report.needs == "pairs"
    assert load_preferences([PAIR], needs_pairs=True).report.needs == "pairs"
    assert load_preferences([PAIR], needs_pairs=False).report.needs == "prompts"


def test_the_two_ways_of_saying_it_are_not_mixed():
    assert "needs='lists' and needs_pairs=False say the same thing twice" in refusal(PAIR, "lists", needs_pairs=False)
    assert (
        "needs='list' is not one of pairs, lists, singles, demonstrations, prompts; did you mean 'lists'?"
        in refusal(PAIR, "list")
    )


# Pairs.


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"chosen": [user("1+1?"), bot("2")], "rejected": [user("1+1?"), bot("3")]},
        {"chosen": "\n\nHuman: 1+1?\n\nAssistant: 2", "rejected": "\n\nHuman: 1+1?\n\nAssistant: 3"},
        {"prompt": "1+1?", "chosen": [user("1+1?"), bot("2")], "rejected": [user("1+1?"), bot("3")]},
    ],
)
def test_a_pair_is_a_list_of_two_and_two_single_answers_and_a_demonstration(row):
    [(prompt, chosen, rejected, *_)] = contents(row, "pairs")
    assert contents(row, "lists") == [(prompt, chosen, rejected, 1.0, (chosen, rejected), (1.0, 0.0))]
    assert contents(row, "singles") == [
        (prompt, None, None, 1.0, (chosen,), (1.0,)),
        (prompt, None, None, 1.0, (rejected,), (-1.0,)),
    ]
    assert contents(row, "demonstrations") == [(prompt, chosen, None, 1.0, (), ())]


def test_a_soft_pair():
    row = {**PAIR, "p": 0.25}
    assert contents(row, "lists") == [("1+1?", "2", "3", 0.25, ("2", "3"), (0.25, 0.75))]
    # The likelier answer is the desirable one.
    assert [(answers, scores) for *_, answers, scores in contents(row, "singles")] == [
        (("3",), (1.0,)),
        (("2",), (-1.0,)),
    ]
    assert contents(row, "demonstrations") == [("1+1?", "3", None, 1.0, (), ())]
    note = "1 soft preferences (p neither 0 nor 1) are read as which answer is the likelier one"
    assert [loaded(row, needs).report.notes for needs in ("lists", "singles", "demonstrations")] == [
        (),
        (note,),
        (note,),
    ]
    assert loaded({**PAIR, "p": 0.0}, "singles").report.notes == ()


def test_a_pair_without_a_preferred_side():
    rows = [{**PAIR, "p": 0.5}, *[PAIR] * 4]
    assert contents(rows, "lists")[0][-1] == (0.5, 0.5)
    for needs, count in (("singles", 8), ("demonstrations", 4)):
        data = loaded(rows, needs)
        assert data.report.faults["neither answer is preferred (p is 0.5)"].first_rows == (1,)
        assert len(data) == count


# Scored answers.


def test_scored_answers_give_everything():
    assert contents(SCORED, "lists") == [
        ("A river?", "Loire", "Alps", 1.0, ("Loire", "Paris", "Rhine", "Alps"), (9.0, 2.0, 8.0, 1.0))
    ]
    assert [(answers[0], scores[0]) for *_, answers, scores in contents(SCORED, "singles")] == [
        ("Loire", 1.0), ("Paris", -1.0), ("Rhine", 1.0), ("Alps", -1.0),
    ]  # fmt: skip
    assert contents(SCORED, "demonstrations") == [("A river?", "Loire", None, 1.0, (), ())]
    for pairs in ("best-worst", "all"):
        both = [contents(SCORED, needs, pairs=pairs) for needs in ("pairs", "prompts")]
        assert both[0] == both[1]
        assert len(both[0]) == {"best-worst": 1, "all": 6}[pairs]
        assert all(answers == scores == () for *_, answers, scores in both[0])
    assert loaded(SCORED, "lists").report.form == "scored answers"


def test_answers_at_the_mean_are_left_out_and_counted():
    """0.1 + 0.2 + 0.3, over 3, is a little less than 0.2 in binary: what rounding leaves is no preference."""
    row = {"prompt": "x", "responses": list("abc"), "scores": [0.1, 0.2, 0.3]}
    data = loaded(row, "singles")
    assert [(one.answers[0], one.scores[0]) for one in data] == [("a", -1.0), ("c", 1.0)]
    assert data.report.notes == ("1 answers whose score is the mean of their row are left out",)


def test_answers_without_a_score_and_empty_ones_are_left_out_and_counted():
    row = {"prompt": "x", "responses": ["a", "b", "c", " ", "e"], "scores": [3, None, 1, 5, "N/A"]}
    for needs, count in (("lists", 1), ("singles", 2)):
        data = loaded(row, needs)
        assert len(data) == count
        assert data.report.notes == ("1 empty answers are left out", "2 answers without a score are left out")
    assert contents(row, "lists")[0][-2:] == (("a", "c"), (3.0, 1.0))


def test_repeated_answers():
    row = {"prompt": "x", "responses": list("abacdd"), "scores": [3, 1, 3, 2, 0, 9]}
    data = loaded(row, "lists")
    assert (data[0].answers, data[0].scores) == (("a", "b", "c"), (3.0, 1.0, 2.0))
    assert (data[0].chosen, data[0].rejected) == ("a", "b")
    assert data.report.notes == (
        "1 answers that repeat another of their row, score and all, are left out",
        "2 answers of equal text and different scores are left out",
    )


def test_lists_with_nothing_to_compare():
    sound = [{**SCORED, "prompt": f"{i}?"} for i in range(12)]
    odd = [
        {"prompt": "tied", "responses": ["a", "b"], "scores": [1, 1]},
        {"prompt": "same", "responses": ["a", "a"], "scores": [1, 2]},
        {"prompt": "alone", "responses": ["a", "b"], "scores": [1, None]},
    ]
    for needs in ("lists", "singles", "demonstrations"):
        faults = loaded(sound + odd, needs).report.faults
        assert {kind: count.first_rows for kind, count in faults.items()} == {
            "tie between the scored answers": (13,),
            "fewer than two different answers": (14,),
            "fewer than two scored answers": (15,),
        }


def test_ties_within_a_list_stay():
    data = loaded({"prompt": "x", "responses": list("abc"), "scores": [2, 2, 1]}, "lists")
    assert data[0].scores == (2.0, 2.0, 1.0)
    assert (data[0].chosen, data[0].rejected) == ("a", "c")
    assert data.report.lists.tied == 1


def test_scored_answers_to_a_conversation_may_repeat_it():
    alone = {"prompt": [user("Hi.")], "responses": ["a", "b", "c"], "scores": [1, 3, 2]}
    whole = {**alone, "responses": [[user("Hi."), bot(text)] for text in "abc"]}
    named = {**whole, "prompt": "Hi."}
    found = contents(alone, "lists")
    assert found[0][0] == (user("Hi."),)
    assert found[0][4] == tuple((bot(text),) for text in "abc")
    assert contents(whole, "lists") == contents(named, "lists") == found
    other = {**whole, "responses": [*whole["responses"][:2], [user("Ho."), bot("c")]]}
    for row in (other, {**other, "prompt": "Hi."}):
        assert "answers to different prompts in row 1" in refusal(row, "lists")
    bad = {**alone, "responses": ["a", "b", [bot("c"), user("d")]]}
    assert "no assistant turn at the end in row 1" in refusal(bad, "lists")


# Labeled answers.


@pytest.mark.parametrize(
    ("label", "score"),
    [(True, 1.0), (False, -1.0), (1, 1.0), (0, -1.0), (1.0, 1.0), ("True", 1.0), ("false", -1.0), ("1", 1.0)],
)
def test_labels(label, score):
    data = loaded({**LABELED, "label": label, "source": "x"}, "singles")
    assert (data[0].answers, data[0].scores, data[0].columns) == (("2",), (score,), {"source": "x"})
    assert data.report.form == "labeled answers"


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"label": None}, "no label (label is empty)"),
        ({"label": ""}, "no label (label is empty)"),
        ({"label": 0.7}, "label is neither true nor false"),
        ({"label": "good"}, "label is neither true nor false"),
        ({"completion": " "}, "empty answer"),
        ({"completion": None}, "empty answer"),
        ({"prompt": ""}, "empty prompt"),
        ({"completion": json.loads('"a\\ud800"')}, "broken characters (half of a surrogate pair)"),
    ],
)
def test_faulty_labeled_answers_are_counted(bad, kind):
    rows = [{**LABELED, "prompt": f"{i}?"} for i in range(5)] + [{**LABELED, **bad}]
    data = loaded(rows, "singles")
    assert [one.row_id for one in data] == list(range(5))
    assert {name: count.first_rows for name, count in data.report.faults.items()} == {kind: (6,)}
    assert f"row 6 cannot be used: {kind}" in refusal(rows, "singles", strict=True)


def test_labeled_answers_to_a_conversation():
    rows = [
        {"prompt": [user("1+1?")], "completion": completion, "label": True}
        for completion in ("2", [bot("2")], [user("1+1?"), bot("2")])
    ]
    rows.append({"prompt": "1+1?", "completion": [user("1+1?"), bot("2")], "label": True})
    found = contents(Dataset.from_list(rows[1:3]).to_list(), "singles")
    found += [content for row in (rows[0], rows[3]) for content in contents(row, "singles")]
    assert found == [((user("1+1?"),), None, None, 1.0, ((bot("2"),),), (1.0,))] * 4


def test_labels_of_a_csv_file(write):
    path = write("a.csv", "prompt,completion,label\n1+1?,2,True\n1+1?,3,False\n")
    data = load_preferences(path, needs="singles")
    assert [one.scores[0] for one in data] == [1.0, -1.0]
    assert data.report.labels.desirable == data.report.labels.undesirable == 1


def test_desirable_answers_are_demonstrations_and_the_others_are_no_faults():
    rows = [{**LABELED, "prompt": f"{i}?", "label": i < 2} for i in range(10)]
    data = loaded(rows, "demonstrations")
    assert [(one.row_id, one.chosen, one.rejected) for one in data] == [(0, "2", None), (1, "2", None)]
    assert data.report.faults == {}
    assert data.report.passed_over == {"undesirable answers are left out": 8}
    assert data.report.notes == ("8 undesirable answers are left out",)
    assert "none of the 8 rows can be used: 8 undesirable answers are left out" in refusal(rows[2:], "demonstrations")
    # Beside them, faulty rows are still too many or not.
    faulty = [*rows, *[{**LABELED, "completion": ""}] * 3]
    assert "3 of 13 rows (23.1%) cannot be used" in refusal(faulty, "demonstrations")


# Demonstrations.


@pytest.mark.parametrize(
    ("row", "prompt", "answer", "form"),
    [
        (ANSWERED, "1+1?", "2", "prompt and completion"),
        ({"instruction": "Add.", "input": "1, 1", "completion": "2"}, "Add.\n\n1, 1", "2", "prompt and completion"),
        ({"prompt": "1+1?", "chosen": "2"}, "1+1?", "2", "prompt and chosen"),
        ({"prompt": [user("1+1?")], "completion": "2"}, (user("1+1?"),), (bot("2"),), "prompt and completion"),
        ({"messages": [user("1+1?"), bot("2")]}, (user("1+1?"),), (bot("2"),), "conversations"),
        (
            {"prompt": "1+1?", "messages": [user("1+1?"), bot("2")]}, (user("1+1?"),), (bot("2"),), "conversations"
        ),
        (
            {"messages": [user("a"), bot("b"), user("c"), bot("d")]},
            (user("a"), bot("b"), user("c")), (bot("d"),), "conversations",
        ),
    ],
)  # fmt: skip
def test_demonstrations(row, prompt, answer, form):
    data = loaded({**row, "source": "x"}, "demonstrations")
    assert [(one.prompt, one.chosen, one.rejected, one.answers) for one in data] == [(prompt, answer, None, ())]
    assert data[0].columns == {"source": "x"}
    assert data.report.form == form
    assert data.report.chosen_chars is not None
    assert not data[0].has_pair


def test_an_answer_with_its_tool_calls_is_one_demonstration():
    call, tool = {**bot(None), "tool_calls": [{"name": "sum"}]}, {"role": "tool", "content": "2"}
    data = loaded({"messages": [user("1+1?"), call, tool, bot("2")]}, "demonstrations")
    assert (data[0].prompt, data[0].chosen) == ((user("1+1?"),), (call, tool, bot("2")))


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([user("1+1?")], "no assistant turn at the end"),
        ([bot("2")], "empty prompt"),
        ([user("1+1?"), bot(" ")], "empty answer"),
        ([], "empty answer"),
        (None, "empty answer"),
    ],
)
def test_conversations_that_are_no_demonstration(messages, kind):
    rows = [{"messages": [user("1+1?"), bot("2")]}] * 4 + [{"messages": messages}]
    assert loaded(rows, "demonstrations").report.faults[kind].first_rows == (5,)


# What does not give it.


@pytest.mark.parametrize(
    ("row", "needs", "said"),
    [
        (LABELED, "lists", "unpaired answers (prompt, completion, label), where lists of scored answers are needed"),
        (ANSWERED, "pairs", "one answer a prompt (prompt, completion) without another to compare it with"),
        (ANSWERED, "singles", "one answer a prompt (prompt, completion) without a label"),
        ({"prompt": "x", "responses": ["a", "b"]}, "lists", "no scores to compare them by"),
        ({"prompt": "x", "responses": ["a", "b"]}, "singles", "no scores to compare them by"),
        ({"prompt": "x"}, "lists", "this one needs lists of scored answers"),
        ({"prompt": "x"}, "singles", "prompts without labeled answers."),
        ({"prompt": "x"}, "demonstrations", "prompts without answers to learn from."),
        ({"prompt": "x", "chosen": "y"}, "pairs", "is a demonstration, which methods read that learn from good"),
        ({"prompt": "x", "chosen": "y"}, "lists", "no column 'rejected'"),
        ({"prompt": "x", "output": "y"}, "demonstrations", 'say columns={"completion": "output"}'),
        ({"prompt": "x", "complettion": "y"}, "demonstrations", "did you mean 'complettion'?"),
        ({"promt": "x", "completion": "y", "label": True}, "singles", "For 'prompt'; did you mean 'promt'?"),
    ],
)
def test_refusals_say_what_was_found_and_what_is_expected(row, needs, said):
    message = refusal(row, needs)
    assert said in message
    assert f"Columns found: {', '.join(row)}" in message
    assert 'Expected: {"prompt": "...", ' in message


@pytest.mark.parametrize("needs", NEEDS)
def test_an_empty_set_is_told_what_it_should_hold(needs):
    message = refusal([], needs)
    expected = {"pairs": "chosen", "lists": "score", "singles": "label", "demonstrations": "completion", "prompts": ""}
    assert "Expected: {" in message
    assert expected[needs] in message.partition("Expected")[2]


def test_columns_are_mapped():
    rows = [{"question": "1+1?", "reply": "2", "ok": False}]
    columns = {"prompt": "question", "completion": "reply", "label": "ok"}
    assert contents(rows, "singles", columns=columns) == [("1+1?", None, None, 1.0, ("2",), (-1.0,))]


# A set that is loaded already.


def test_a_loaded_set_is_taken_where_it_holds_what_is_needed():
    sets = {needs: loaded([SCORED] * 2, needs) for needs in NEEDS}
    fits = {
        "pairs": {"pairs", "demonstrations", "prompts"},
        "lists": {"pairs", "lists", "demonstrations", "prompts"},
        "singles": {"singles", "prompts"},
        "demonstrations": {"demonstrations", "prompts"},
        "prompts": {"pairs", "demonstrations", "prompts"},
    }
    for given, data in sets.items():
        assert load_preferences(data) is data
        for needs in NEEDS:
            if needs in fits[given]:
                assert load_preferences(data, needs=needs) is data
            else:
                with pytest.raises(DataError) as caught:
                    load_preferences(data, needs=needs)
                assert f"needs={given!r}, but {needs} are needed here, and " in str(caught.value)
                assert f"Load it again with load_preferences(..., needs={needs!r})" in str(caught.value)


def test_a_loaded_set_with_single_rows_that_lack_it():
    data = load_preferences([PAIR, {**PAIR, "rejected": "2"}, PAIR], needs_pairs=False)
    with pytest.raises(DataError, match=r"1 of 3 examples hold none \(the first is of row 2\)"):
        load_preferences(data, needs_pairs=True)
    with pytest.raises(DataError, match="hold none"):
        load_preferences(load_preferences([{**PAIR, "p": 0.3}]), needs="demonstrations")


# Ids, splits, fingerprints, the report.


def test_row_ids_are_unique_and_do_not_hang_on_what_follows():
    rows = [{**PAIR, "prompt": ""}, PAIR, {**PAIR, "prompt": "2+2?"}]
    singles = loaded(rows, "singles", max_faulty=0.5)
    assert [(one.row_id, one.source_row) for one in singles] == [(0, 1), (1, 1), (2, 2), (3, 2)]
    assert [one.row_id for one in loaded(rows, "singles", limit=2, max_faulty=0.5)] == [0, 1]
    for needs in ("lists", "demonstrations"):
        for pairs in ("best-worst", "all"):
            assert [one.row_id for one in loaded(rows, needs, max_faulty=0.5, pairs=pairs)] == [1, 2]


def test_every_row_of_a_prompt_lies_on_one_side_of_a_split():
    rows = [{**PAIR, "prompt": f"{i % 10}?"} for i in range(30)]
    train, held_out = split_by_prompt(loaded(rows, "singles"), 0.2, seed=0)
    assert (len(train), len(held_out)) == (48, 12)
    assert not {one.prompt for one in train} & {one.prompt for one in held_out}
    assert train.report.needs == "singles"
    assert held_out.report.labels.desirable == 6


def test_the_fingerprint_covers_answers_and_scores():
    def fingerprint(**changes):
        return loaded({**SCORED, **changes}, "lists").fingerprint

    assert fingerprint() == fingerprint()
    others = {
        fingerprint(scores=[9, 2, 7, 1]),
        fingerprint(responses=["Loire", "Paris", "Elbe", "Alps"]),
        fingerprint(responses=["Loire", "Rhine", "Paris", "Alps"]),
        fingerprint(),
    }
    assert len(others) == 4
    labels = {loaded({**LABELED, "label": label}, "singles").fingerprint for label in (True, False)}
    assert len(labels) == 2


def test_the_fingerprint_of_pairs_stays():
    """Runs of earlier versions are resumed by it."""
    assert load_preferences([PAIR]).fingerprint == "728d039736a1dbdc1db34c8f1a27c1bc"
    assert load_preferences([{"prompt": "1+1?"}], needs_pairs=False).fingerprint == "609e1081c892210d60d22ee706331f21"


def test_the_report_of_lists():
    rows = [SCORED, {"prompt": "y", "responses": ["a", "b"], "scores": [0.5, -1]}, {**SCORED, "scores": [1, 1, 2, 3]}]
    report = check_preferences(rows, needs="lists")
    assert (report.lists.fewest, report.lists.median, report.lists.most) == (2, 4.0, 4)
    assert (report.lists.lowest, report.lists.highest, report.lists.tied) == (-1.0, 9.0, 1)
    text = str(report)
    assert "read as                 lists\n" in text
    assert "answers a row           2 to 4, median 4\n" in text
    assert "scores                  -1 to 9\n" in text
    assert "rows with tied scores   1\n" in text
    assert "answer characters" in text
    assert json.loads(json.dumps(report.as_dict()))["lists"]["most"] == 4
    assert "answers a row           4\n" in str(check_preferences([SCORED], needs="lists"))


def test_the_report_of_single_answers():
    rows = [LABELED, LABELED, {**LABELED, "label": False}, {**LABELED, "completion": "3", "label": False}]
    report = check_preferences(rows, needs="singles")
    assert (report.labels.desirable, report.labels.undesirable, report.labels.contradicted) == (2, 2, 1)
    assert (report.duplicates, report.pairs, report.lists) == (1, 0, None)
    assert "labels                  2 desirable (50.0%), 2 undesirable\n" in str(report)
    assert "marked both ways        1\n" in str(report)
    assert "with a pair" not in str(report)
    assert check_preferences([PAIR]).labels is None


def test_answers_that_repeat_a_string_prompt_are_noted():
    rows = [{"prompt": f"{i}?", "completion": f"{i}? Yes", "label": True} for i in range(3)]
    assert "in 3 examples the answer begins with the whole prompt" in check_preferences(rows, needs="singles").notes[0]
    rows = [{"prompt": "a", "responses": ["ab", "ac", "ad"], "scores": [1, 2, 3]}]
    assert "in 1 examples every answer begins with the whole" in check_preferences(rows, needs="lists").notes[0]
