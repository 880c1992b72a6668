"""The run directory: everything a run did, readable without setsail.

config.yaml        the resolved configuration; `setsail train --config` runs it again
run.json           method, reference, status, step, start and end
environment.json   versions and hardware
metrics.jsonl      one line a log
pairs.jsonl        every pair drawn or labeled during training: a preference data set with provenance
groups.jsonl       the same for groups of another size than two, which no preference data set can hold
alarms.jsonl       one line an alarm
superseded/        lines of a run that was killed, written after the checkpoint it was resumed from
checkpoint-N/      see setsail.training.checkpoint
model files        the trained model, written at the end
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from setsail.core import ConfigError, Group, TrainingError

PAIRS, GROUPS = "pairs", "groups"
MADE = (PAIRS, GROUPS)
LINES = ("metrics", *MADE, "alarms")


class RunDirectory:
    """Appends to the files of one run. On processes other than the main one it writes nothing."""

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes

    def claim(self, *, resuming: bool) -> None:
        """Take the directory for this run.

        Raises:
            ConfigError: it holds another run and this one does not resume it.
        """
        if not resuming and (self.path / "run.json").exists():
            status = self.read_run().get("status", "unknown")
            raise ConfigError(
                f"output_dir {str(self.path)!r} already holds a run (status: {status}); pass "
                "resume_from_checkpoint to go "
                "on with it, or give another output_dir"
            )
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)

    def read_run(self) -> dict[str, Any]:
        """What run.json says; empty where there is none."""
        file = self.path / "run.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def describe(self, **facts: Any) -> None:
        """Add facts to run.json."""
        self.replace("run.json", json.dumps({**self.read_run(), **facts}, indent=2, default=str) + "\n")

    def replace(self, name: str, text: str) -> None:
        """Write a whole file so that readers see the old one or the new one, never a part."""
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.part"
        temporary.write_text(text)
        os.replace(temporary, self.path / name)

    def append(self, kind: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records to ``kind``.jsonl.

        Raises:
            TrainingError: the file cannot be written.
        """
        if not self.writes:
            return
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        if not text:
            return
        try:
            with (self.path / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise TrainingError(
                f"{kind}.jsonl cannot be written in {str(self.path)!r}: {error}; free some space (or repair the "
                "directory) and go on with resume_from_checkpoint=True"
            ) from error

    def read(self, kind: str) -> list[dict[str, Any]]:
        """The records of ``kind``.jsonl; a last line that a kill cut short is left out."""
        file = self.path / f"{kind}.jsonl"
        if not file.exists():
            return []
        return [record for line in _lines(file) if (record := _parsed(line))]

    def rewind(self, step: int) -> None:
        """Keep what was written up to the checkpoint at ``step``; move what came later to superseded/.

        A metric or an alarm of step k was written after k optimizer steps. A group's step is the number of optimizer
        steps done when it was made, so groups of step ``step`` itself are made again after resuming.
        """
        if not self.writes:
            return
        for kind in LINES:
            file = self.path / f"{kind}.jsonl"
            if not file.exists():
                continue
            last = step - 1 if kind in MADE else step
            kept: list[str] = []
            later: list[str] = []
            for line in _lines(file):
                record = _parsed(line)
                (kept if record is not None and record.get("step", 0) <= last else later).append(line)
            if later:
                (self.path / "superseded").mkdir(exist_ok=True)
                with (self.path / "superseded" / f"{kind}.jsonl").open("a", encoding="utf-8") as old:
                    old.write("".join(line + "\n" for line in later))
                self.replace(f"{kind}.jsonl", "".join(line + "\n" for line in kept))


def _lines(file: Path) -> list[str]:
    # Not splitlines: a drawn answer may hold a line separator (U+2028, U+0085), which JSON does not escape.
    # A kill can cut the last character in two; its line is not a record then, and is treated as one that is cut.
    return [line for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def file_of(record: Mapping[str, Any]) -> str:
    """Which file a :func:`group_record` belongs into."""
    return PAIRS if "chosen" in record else GROUPS


def group_record(group: Group, step: int) -> dict[str, Any]:
    """A group with its provenance; a pair is a row of a preference data set.

    A pair has ``prompt``, ``chosen``, ``rejected`` and ``p``, the probability that ``chosen`` is preferred, so it is at
    least 1/2; None = labeled by the policy inside the loss. A group of another size has ``completions`` instead.
    ``values`` are what an objective over groups reads. Conversational prompts give conversational rows.
    """
    order = list(range(len(group.completions)))
    if group.is_pair and not _first_is_chosen(group):
        order.reverse()
    sides = [group.completions[i] for i in order]
    chat = group.prompt.messages is not None

    def say(text: str) -> Any:
        return [{"role": "assistant", "content": text}] if chat else text

    def ordered(column: Sequence[Any] | None) -> list[Any] | None:
        return None if column is None else [column[i] for i in order]

    texts = [say(side.text) for side in sides]
    if group.is_pair:
        p = None if group.p is None else max(group.p, 1 - group.p)
        answers: dict[str, Any] = {"chosen": texts[0], "rejected": texts[1], "p": p}
    else:
        answers = {"completions": texts}
    return {
        "prompt": [dict(message) for message in group.prompt.messages or ()] if chat else group.prompt.text,
        **answers,
        "scores": ordered(group.scores),
        "values": ordered(group.values),
        "route": group.route,
        "labeler": group.labeler,
        "row_id": group.prompt.row_id,
        "epoch": group.epoch,
        "step": step,
        "policy_version": group.policy_version,
        "stream": list(group.stream),
        "origins": [side.origin for side in sides],
        "lengths": [side.length for side in sides],
        "finished": [side.finished for side in sides],
        "logps": [side.logp for side in sides],
        "token_ids": [list(side.token_ids) for side in sides],
    }


def _first_is_chosen(pair: Group) -> bool:
    if pair.p is None and pair.values is not None:
        return pair.values[0] >= pair.values[1]
    return pair.p is None or pair.p >= 0.5
