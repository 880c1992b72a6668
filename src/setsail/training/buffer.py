"""Pairs that were drawn ahead of the step that learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from setsail.core import Completion, Pair, Row, TrainingError
from setsail.training.pairs import Visit


class PairBuffer:
    """Pairs by visit ``(epoch, row id)``, handed out once, never older than the staleness limit."""

    def __init__(self, staleness: int) -> None:
        self.staleness = staleness
        self._pairs: dict[Visit, tuple[Pair, ...]] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, visit: Visit) -> bool:
        return visit in self._pairs

    def put(self, pairs: Mapping[Visit, tuple[Pair, ...]]) -> None:
        """Keep the pairs of some visits."""
        self._pairs.update(pairs)

    def take(self, visit: Visit, policy_version: int) -> tuple[Pair, ...]:
        """Remove and return the pairs of a visit.

        Raises:
            TrainingError: a pair was drawn more than ``staleness`` optimizer steps ago.
        """
        pairs = self._pairs.pop(visit)
        for pair in pairs:
            gap = policy_version - (policy_version if pair.policy_version is None else pair.policy_version)
            if gap > self.staleness:
                raise TrainingError(
                    f"a pair of row {pair.prompt.row_id} was drawn {gap} optimizer steps ago, past the "
                    "staleness limit of "
                    f"{self.staleness}; this is a fault of setsail, please report it with the run directory"
                )
        return pairs

    def state(self) -> list[dict[str, Any]]:
        """The buffered pairs as plain data; prompts are left out, they are found again by row id."""
        return [
            {"epoch": epoch, "row_id": row_id, "pairs": [_plain(pair) for pair in pairs]}
            for (epoch, row_id), pairs in self._pairs.items()
        ]

    def load(self, state: Iterable[Mapping[str, Any]], rows: Mapping[int, Row]) -> None:
        """Restore what :meth:`state` returned; ``rows`` gives the prompts by row id."""
        self._pairs = {
            (entry["epoch"], entry["row_id"]): tuple(_pair(plain, rows[entry["row_id"]]) for plain in entry["pairs"])
            for entry in state
        }


def _plain(pair: Pair) -> dict[str, Any]:
    plain = {name: getattr(pair, name) for name in pair.__slots__ if name != "prompt"}
    return {**plain, "first": asdict(pair.first), "second": asdict(pair.second)}


def _completion(plain: Mapping[str, Any]) -> Completion:
    return Completion(**{**plain, "token_ids": tuple(plain["token_ids"])})


def _pair(plain: Mapping[str, Any], row: Row) -> Pair:
    changed = {
        "first": _completion(plain["first"]),
        "second": _completion(plain["second"]),
        "scores": None if plain["scores"] is None else tuple(plain["scores"]),
        "stream": tuple(plain["stream"]),
    }
    return Pair(prompt=row.prompt, **{**plain, **changed})
