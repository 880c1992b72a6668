"""AlpacaEval's form: read, checked, aligned by instruction, and written back."""

from __future__ import annotations

import json

import pytest

from setsail.core import DataError
from setsail.evaluation import LengthControlled, ModelOutput, align_outputs, read_outputs, write_outputs


def rows(*instructions: str, generator: str = "m") -> list[dict[str, str]]:
    return [
        {"instruction": each, "output": f"to {each}", "generator": generator, "dataset": "d"} for each in instructions
    ]


def test_there_and_back() -> None:
    text = json.dumps(rows("one", "zwei ü", "three\nlines"))
    outputs = read_outputs(text)
    assert [output.instruction for output in outputs] == ["one", "zwei ü", "three\nlines"]
    assert json.loads(write_outputs(outputs)) == json.loads(text)
    assert read_outputs(write_outputs(outputs)) == outputs


def test_json_lines_extra_keys_and_a_missing_data_set() -> None:
    line = {"instruction": "Hi", "output": "", "generator": "m", "preference": 1.2, "datasplit": "eval"}
    other = {**line, "instruction": "Ho", "dataset": "koala"}
    found = read_outputs(json.dumps(line) + "\n\n" + json.dumps(other) + "\n")
    assert found[0] == ModelOutput(instruction="Hi", output="", generator="m", dataset="")
    assert (found[0].chars, found[1].dataset) == (0, "koala")


def test_lengths_are_characters() -> None:
    assert ModelOutput(instruction="", output="zwölf\n", generator="m").chars == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instruction,output", "outputs that are no JSON"),
        ('{"instruction": "a"} and', "outputs that are no JSON"),
        ("[]", "outputs without a row"),
        ('"text"', "outputs without a row"),
        ("[1]", "row 0 is no object"),
        ('[{"instruction": "a", "generator": "m"}]', r"row 0: 'output' is missing \(keys: instruction, generator\)"),
        ('[{"instruction": "a", "output": null, "generator": "m"}]', "row 0: 'output' is NoneType, not a string"),
        ('[{"instruction": "a", "output": "b", "generator": "m", "dataset": 3}]', "row 0: 'dataset' is int"),
        (json.dumps(rows("a") + rows("b", generator="n")), r"outputs of 2 generators \(m, n\): give one model a file"),
        (json.dumps(rows("a", "b", "a")), "the instruction 'a' occurs 2 times"),
    ],
)
def test_what_are_no_outputs(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_outputs(text)


def test_nothing_is_not_written() -> None:
    with pytest.raises(DataError, match="no outputs to write"):
        write_outputs([])
    with pytest.raises(DataError, match="occurs 2 times"):
        write_outputs([ModelOutput(instruction="a", output="b", generator="m")] * 2)


def test_instructions_are_matched_by_text() -> None:
    """Another order and a missing row: what comes after it is not shifted."""
    baseline = read_outputs(json.dumps(rows("a", "b", "c", "d", generator="base")))
    model = read_outputs(json.dumps(rows("d", "a", "c")))
    pairs = align_outputs(model, baseline)
    assert [mine and mine.instruction for mine, _ in pairs] == ["a", None, "c", "d"]
    assert [theirs.instruction for _, theirs in pairs] == ["a", "b", "c", "d"]
    lengths = [[mine and mine.chars for mine, _ in pairs]]
    fit = LengthControlled.fit([[1, None, 0, 1]], lengths, [3, 5, 4, 2], resamples=100)
    assert fit.models[0].missing == 1


def test_another_evaluation_set_is_refused() -> None:
    baseline, model = (read_outputs(json.dumps(rows(*names))) for names in ("ab", "bz"))
    with pytest.raises(DataError, match="1 of 2 instructions of the model are not the baseline's, such as 'z'"):
        align_outputs(model, baseline)
    with pytest.raises(DataError, match="0 of 0 instructions"):
        align_outputs([], baseline)
