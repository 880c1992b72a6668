"""Asking the labeler about some drawn pairs only: which ones, and that the others cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build

from setsail import methods
from setsail.core import Candidates, Completion, Prompt, Row, Sampling
from setsail.engines import ScriptedEngine
from setsail.labelers import Scripted
from setsail.training.groups import Gather, GroupMaker

MARGINS = {0: 0.1, 1: -0.9, 2: 0.0, 3: 0.5, 4: -0.2, 5: 0.7, 6: 0.3, 7: -0.4}


def _maker(acquire: float = 0.5, gather: Gather = list, margins: dict[int, float] | None = None) -> GroupMaker:
    apl = methods.get("apl")
    [route] = apl.routes
    changed = {name: getattr(route, name) for name in route.__slots__}
    method = apl.with_parts(routes=(type(route)(**{**changed, "acquire": acquire}),))
    known = MARGINS if margins is None else margins

    def margin(groups: Sequence[Candidates]) -> list[float]:
        return [known[group.prompt.row_id] for group in groups]

    engine = ScriptedEngine(lambda prompt, k: Completion(token_ids=(prompt.row_id, k), text=str(k)))
    labeler = Scripted(lambda prompt, text: float(text))
    return GroupMaker(
        method, lambda source: engine, labeler, sampling=Sampling(), n=2, seed=0, margins=margin, gather=gather
    )


def _rows(numbers: Sequence[int]) -> list[Row]:
    return [Row(prompt=Prompt(row_id=i, text=f"q{i}", token_ids=(i + 1,))) for i in numbers]


def _kept(maker: GroupMaker, numbers: Sequence[int], epoch: int = 0) -> set[int]:
    made = maker.make(epoch, _rows(numbers), policy_version=0)
    assert set(made.groups) == {(epoch, i) for i in numbers}
    return {row for (_, row), groups in made.groups.items() if groups}


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, {1, 5, 3, 7}), (0.25, {1, 5}), (0.3, {1, 5, 3}), (0.01, {1}), (0.7, {1, 5, 3, 7, 6, 4})],
)
def test_the_largest_margins_are_asked_about(share: float, expected: set[int]) -> None:
    """The share is rounded up: at least one pair is learnt from. 0.7 of 10 is 7 also in floating point."""
    maker = _maker(share)
    assert _kept(maker, range(8)) == expected
    assert maker.labelers["labeler"].calls == [len(expected)]  # type: ignore[union-attr]
    ten = {i: float(i) for i in range(10)}
    assert len(_kept(_maker(0.7, margins=ten), range(10))) == 7


def test_the_choice_is_one_over_all_processes() -> None:
    """Two processes of four rows ask about the rows that one process of eight asks about."""
    ranks: list[Any] = []

    def remember(items: list[Any]) -> list[Any]:
        ranks.extend(items)
        return items

    whole = _kept(_maker(gather=remember), range(8))
    everyone = list(ranks)
    halves = [_kept(_maker(gather=lambda items: everyone), part) for part in (range(4), range(4, 8))]
    assert halves[0] | halves[1] == whole
    # Not two of each: the first process has fewer pairs that are worth it.
    assert [len(half) for half in halves] == [2, 2]
    lopsided = {**MARGINS, 0: 2.0, 2: 3.0}
    ranks.clear()
    whole = _kept(_maker(gather=remember, margins=lopsided), range(8))
    everyone = list(ranks)
    halves = [_kept(_maker(gather=lambda items: everyone, margins=lopsided), part) for part in (range(4), range(4, 8))]
    assert halves == [{0, 1, 2}, {5}]
    assert whole == {0, 1, 2, 5}


def test_margins_that_rounding_tells_apart_are_alike() -> None:
    """At the start all margins are 0 but for rounding: chance decides then, not rounding, nor the row's number."""
    noise = {i: (-1) ** i * 1e-6 * (i % 3) for i in range(8)}
    chosen = [_kept(_maker(margins=noise), range(8), epoch) for epoch in range(20)]
    assert chosen[0] == _kept(_maker(margins=dict.fromkeys(range(8), 0.0)), range(8), 0)
    assert all(len(each) == 4 for each in chosen)
    assert len({tuple(sorted(each)) for each in chosen}) > 10
    assert set.union(*chosen) == set(range(8))


# In a run.


def _run(build: Build, out: str, **options: Any) -> tuple[list[tuple[str, ...]], list[dict[str, Any]]]:
    asked: list[tuple[str, ...]] = []

    def count(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        asked.append(tuple(prompts))
        return tiny.reward(prompts, completions)

    trainer = build(out=out, method="apl", labeler=count, max_steps=4, max_completion_length=8, **options)
    trainer.train()
    return asked, [log for log in trainer.state.log_history if "loss" in log]


def test_labeler_calls_are_saved(build: Build, tmp_path: Path) -> None:
    """8 rows a step: 4 of them cost two scores each, and only those are in the run directory and in the mean."""
    asked, logs = _run(build, "run", per_device_train_batch_size=8)
    assert [len(prompts) for prompts in asked] == [8, 8, 8, 8]
    assert all(len(set(prompts)) == 4 for prompts in asked)
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    assert [sum(record["step"] == step for record in records) for step in range(4)] == [4] * 4
    assert all(log["sail/dpr/missing"] == 0 for log in logs)


def test_the_choice_does_not_depend_on_the_micro_batch(build: Build, tmp_path: Path) -> None:
    chosen, weights = [], []
    for size in (8, 4, 1):
        out = f"run-{size}"
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        _run(build, out, learning_rate=1e-4, **options)
        records = tiny.lines(tmp_path / out / "pairs.jsonl")
        chosen.append([(record["step"], record["row_id"]) for record in records])
        weights.append([record["token_ids"] for record in records])
    assert chosen[0] == chosen[1] == chosen[2]
    assert weights[0] == weights[1] == weights[2]
