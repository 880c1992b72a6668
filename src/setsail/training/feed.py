"""The rows of each optimizer step, read from the data loader in windows.

When several processes share an epoch whose rows do not fill the last batches, the data loader repeats rows from the
epoch's start. Those repetitions are left out here, so that every process count trains on each row once an epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from setsail.core import Row


@dataclass(frozen=True, slots=True)
class MicroRows:
    """The rows of one micro-batch.

    Attributes:
        rows: may be empty, where a process has no row left in this epoch.
        spare: a row that stands in for missing ones, at weight 0.
    """

    rows: tuple[Row, ...]
    spare: Row


class Feed:
    """Hands out the micro-batches of one process, read ahead where a method makes pairs in rounds.

    Args:
        process, processes: which process this is, of how many.
        rows: rows in the data set.
        batch_size: rows of one micro-batch of one process.
    """

    def __init__(self, *, process: int, processes: int, rows: int, batch_size: int) -> None:
        self.process, self.processes = process, processes
        self.rows, self.batch_size = rows, batch_size
        self._waiting: deque[MicroRows] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Forget what was read ahead."""
        self._waiting.clear()

    def read(self, iterator: Iterator[Mapping[str, Any]], batches: int, passed: int) -> list[Row]:
        """Read up to ``batches`` micro-batches, of which ``passed`` came before in this epoch; return their rows."""
        for number, batch in enumerate(islice(iterator, batches), start=passed):
            # Batches are dealt to processes in turn, so this one begins here in the epoch's order of rows.
            start = (number * self.processes + self.process) * self.batch_size
            rows = batch["rows"]
            own = tuple(rows[: max(0, self.rows - start)]) if self.processes > 1 else tuple(rows)
            self._waiting.append(MicroRows(own, rows[0]))
        return [row for micro in self._waiting for row in micro.rows]

    def take(self, count: int) -> list[MicroRows]:
        """The next ``count`` micro-batches, or as many as were read."""
        return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
