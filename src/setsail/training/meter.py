"""Running means of named quantities between two logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from setsail.training.groups import Gather


class Meter:
    """Sums and counts by name; the mean of everything added since the last :meth:`pop`, over all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self.popped: dict[str, float] = {}
        """How many values each mean of the last :meth:`pop` was over, all processes together."""

    def add(self, name: str, values: Tensor | Iterable[float] | float) -> None:
        """Add one value or many; each counts once."""
        if isinstance(values, Tensor):
            values = values.detach().double().reshape(-1).tolist()
        items = [values] if isinstance(values, (int, float)) else list(values)
        self._sums[name] = self._sums.get(name, 0.0) + sum(items)
        self._counts[name] = self._counts.get(name, 0.0) + len(items)

    def pop(self, gather: Gather) -> dict[str, float]:
        """Means since the last call, over all processes, names sorted; quantities without a value are left out."""
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for part in gather([self.state()]):
            for name, (total, count) in part.items():
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0.0) + count
        self._sums, self._counts, self.popped = {}, {}, counts
        return {name: sums[name] / counts[name] for name in sorted(sums) if counts[name] > 0}

    def state(self) -> dict[str, tuple[float, float]]:
        """Plain data for a checkpoint."""
        return {name: (self._sums[name], self._counts[name]) for name in self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._sums = {name: float(total) for name, (total, _) in state.items()}
        self._counts = {name: float(count) for name, (_, count) in state.items()}
