"""Model outputs in AlpacaEval's form: a JSON list of ``instruction``, ``output``, ``generator``, ``dataset``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from setsail.core import DataError

SHAPE = '[{"instruction": "...", "output": "...", "generator": "my-model", "dataset": "helpful_base"}]'


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """One answer: what was asked, what was answered, by which model, from which part of the evaluation set."""

    instruction: str
    output: str
    generator: str
    dataset: str = ""

    @property
    def chars(self) -> int:
        """Length of the answer in characters, the unit of AlpacaEval's length control."""
        return len(self.output)


def read_outputs(text: str) -> list[ModelOutput]:
    """The outputs in a file's text: a JSON list, or JSON lines.

    Extra keys are ignored; ``dataset`` may be missing. An empty answer is an answer.

    Raises:
        DataError: no JSON, no rows, a row that lacks a key or has another type, several generators, or an instruction
            that occurs twice; with the row's number.

    >>> read_outputs('[{"instruction": "Hi", "output": "Hello.", "generator": "m"}]')[0].chars
    6
    """
    rows = _rows(text)
    outputs = [_output(row, index) for index, row in enumerate(rows)]
    generators = sorted({output.generator for output in outputs})
    if len(generators) > 1:
        raise DataError(f"outputs of {len(generators)} generators ({', '.join(generators[:3])}): give one model a file")
    check_instructions(outputs)
    return outputs


def write_outputs(outputs: Sequence[ModelOutput]) -> str:
    """The text of a file that :func:`read_outputs` and AlpacaEval read.

    Raises:
        DataError: no outputs, or an instruction that occurs twice.

    >>> print(write_outputs([ModelOutput(instruction="Hi", output="Hello.", generator="m", dataset="d")]))
    [
      {
        "instruction": "Hi",
        "output": "Hello.",
        "generator": "m",
        "dataset": "d"
      }
    ]
    """
    if not outputs:
        raise DataError("no outputs to write: an empty list would be read as a model that answers nothing")
    check_instructions(outputs)
    return json.dumps([asdict(output) for output in outputs], indent=2, ensure_ascii=False)


def align_outputs(
    model: Sequence[ModelOutput], baseline: Sequence[ModelOutput]
) -> list[tuple[ModelOutput | None, ModelOutput]]:
    """Each of the baseline's outputs, in its order, with the model's output to the same instruction, or None.

    Instructions are matched by their text, never by position: a row that is missing in one file would else shift all
    that come after it.

    Raises:
        DataError: an instruction that occurs twice, one of the model's that the baseline lacks, or none in common.

    >>> ours = [ModelOutput(instruction="b", output="1", generator="m")]
    >>> theirs = [ModelOutput(instruction=each, output="2", generator="base") for each in "ab"]
    >>> [pair[0] and pair[0].output for pair in align_outputs(ours, theirs)]
    [None, '1']
    """
    check_instructions(model)
    check_instructions(baseline)
    mine = {output.instruction: output for output in model}
    unknown = sorted(mine.keys() - {output.instruction for output in baseline})
    if unknown or not mine:
        raise DataError(
            f"{len(unknown)} of {len(mine)} instructions of the model are not the baseline's"
            f"{f', such as {unknown[0][:60]!r}' if unknown else ''}: both must answer the same evaluation set"
        )
    return [(mine.get(output.instruction), output) for output in baseline]


def check_instructions(outputs: Sequence[ModelOutput]) -> None:
    """Refuse outputs that answer one instruction twice.

    Raises:
        DataError: they do.
    """
    most = Counter(output.instruction for output in outputs).most_common(1)
    if most and most[0][1] > 1:
        raise DataError(f"the instruction {most[0][0][:60]!r} occurs {most[0][1]} times: give one output each")


def _rows(text: str) -> list[object]:
    try:
        if text.lstrip().startswith("{"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"outputs that are no JSON ({error}); expected {SHAPE}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"outputs without a row; expected {SHAPE}")
    return rows


def _output(row: object, index: int) -> ModelOutput:
    if not isinstance(row, dict):
        raise DataError(f"row {index} is no object; expected {SHAPE}")
    for key in ("instruction", "output", "generator"):
        if not isinstance(row.get(key), str):
            found = type(row[key]).__name__ if key in row else f"missing (keys: {', '.join(map(str, row))})"
            raise DataError(f"row {index}: {key!r} is {found}, not a string; expected {SHAPE}")
    dataset = row.get("dataset", "")
    if not isinstance(dataset, str):
        raise DataError(f"row {index}: 'dataset' is {type(dataset).__name__}, not a string; expected {SHAPE}")
    return ModelOutput(
        instruction=row["instruction"], output=row["output"], generator=row["generator"], dataset=dataset
    )
