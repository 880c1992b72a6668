"""Groups that were made ahead of the step that learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from setsail.core import Completion, Group, Row, TrainingError
from setsail.training.groups import Visit


class GroupBuffer:
    """Groups by visit ``(epoch, row id)``, handed out once, never older than the staleness limit."""

    def __init__(self, staleness: int) -> None:
        self.staleness = staleness
        self._groups: dict[Visit, tuple[Group, ...]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, visit: Visit) -> bool:
        return visit in self._groups

    def put(self, groups: Mapping[Visit, tuple[Group, ...]]) -> None:
        """Keep the groups of some visits."""
        self._groups.update(groups)

    def take(self, visit: Visit, policy_version: int) -> tuple[Group, ...]:
        """Remove and return the groups of a visit.

        Raises:
            TrainingError: a group was drawn more than ``staleness`` optimizer steps ago.
        """
        groups = self._groups.pop(visit)
        for group in groups:
            gap = policy_version - (policy_version if group.policy_version is None else group.policy_version)
            if gap > self.staleness:
                raise TrainingError(
                    f"a group of row {group.prompt.row_id} was drawn {gap} optimizer steps ago, past the "
                    "staleness limit of "
                    f"{self.staleness}; this is a fault of setsail, please report it with the run directory"
                )
        return groups

    def state(self) -> list[dict[str, Any]]:
        """The buffered groups as plain data; prompts are left out, they are found again by row id."""
        return [
            {"epoch": epoch, "row_id": row_id, "groups": [_plain(group) for group in groups]}
            for (epoch, row_id), groups in self._groups.items()
        ]

    def load(self, state: Iterable[Mapping[str, Any]], rows: Mapping[int, Row]) -> None:
        """Restore what :meth:`state` returned; ``rows`` gives the prompts by row id."""
        self._groups = {
            (entry["epoch"], entry["row_id"]): tuple(_group(plain, rows[entry["row_id"]]) for plain in entry["groups"])
            for entry in state
        }


SIDES = ("completions", "others")
"""Fields that hold completions."""


def _plain(group: Group) -> dict[str, Any]:
    plain = {name: getattr(group, name) for name in group.__slots__ if name != "prompt"}
    return {**plain, **{side: [asdict(one) for one in plain[side]] for side in SIDES}}


def _completion(plain: Mapping[str, Any]) -> Completion:
    return Completion(**{**plain, "token_ids": tuple(plain["token_ids"])})


def _group(plain: Mapping[str, Any], row: Row) -> Group:
    tuples = {name: None if plain[name] is None else tuple(plain[name]) for name in ("values", "scores", "stream")}
    sides = {side: tuple(_completion(one) for one in plain[side]) for side in SIDES}
    return Group(prompt=row.prompt, **{**plain, **tuples, **sides})
