"""Which rows make which step: epochs, remainders, provenance, length limits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build
from transformers import TrainerCallback

from setsail import SailTrainer
from setsail.training.feed import Feed
from setsail.training.mixture import draw_route


class Rows(TrainerCallback):
    """Notes the rows of every step."""

    def __init__(self) -> None:
        self.trainer: SailTrainer | None = None
        self.steps: list[tuple[int, ...]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        self.steps.append(self.trainer.step_rows)


def _train(build: Build, **options: Any) -> tuple[SailTrainer, Rows]:
    rows = Rows()
    trainer = build(callbacks=[rows], **options)
    rows.trainer = trainer
    trainer.train()
    return trainer, rows


@pytest.mark.parametrize("count", [22, 24, 7, 3])
@pytest.mark.parametrize("method", ["sail-mix", "iterative-dpo"])
def test_every_epoch_visits_every_row_once(build: Build, count: int, method: str) -> None:
    """Two rows a micro-batch, three micro-batches a step: remainders of every kind at the epoch's end."""
    trainer, rows = _train(
        build, method=method, data=tiny.preferences(count), num_train_epochs=3, max_steps=-1,
        per_device_train_batch_size=2, gradient_accumulation_steps=3, **_rounds(method),
    )  # fmt: skip
    steps = -(-count // 6)
    assert trainer.state.global_step == len(rows.steps) == 3 * steps
    for epoch in range(3):
        visited = [row for step in rows.steps[epoch * steps : (epoch + 1) * steps] for row in step]
        assert sorted(visited) == list(range(count))
    assert count == 3 or rows.steps[:steps] != rows.steps[steps : 2 * steps]
    assert len(trainer.buffer) == 0
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 3 * steps
    assert all(0 < log["loss"] < 3 for log in logs)


def _rounds(method: str) -> dict[str, int]:
    return {"staleness_limit": 3, "ref_model_sync_steps": 4} if method == "iterative-dpo" else {}


def test_more_steps_than_an_epoch(build: Build) -> None:
    trainer, rows = _train(build, data=tiny.preferences(10), max_steps=7)
    assert [len(step) for step in rows.steps] == [4, 4, 2, 4, 4, 2, 4]
    assert trainer.state.epoch == pytest.approx(2 + 1 / 3)


def test_a_short_last_step_is_a_mean_over_its_own_pairs(build: Build) -> None:
    """10 rows in steps of 8: the second step's gradient is that of a step of two rows."""
    short, own = tiny.Recorder(), tiny.Recorder()
    options = {"train_sampling_strategy": "sequential", "learning_rate": 0.0, "max_grad_norm": 0.0}
    build(
        out="short", data=tiny.preferences(10), max_steps=2, gradient_accumulation_steps=2, callbacks=[short], **options
    ).train()
    build(out="own", data=tiny.preferences(10)[8:], max_steps=1, callbacks=[own], **options).train()
    assert tiny.relative_difference(own.gradients[0], short.gradients[1]) < 1e-6


def test_row_order_and_draws_do_not_depend_on_the_batch(build: Build, tmp_path: Path) -> None:
    """The pairs of an epoch with untouched weights are the same, whatever the batch and the accumulation."""
    written = []
    for name, batch, accumulation in (("a", 4, 1), ("b", 2, 2), ("c", 8, 1), ("d", 1, 3)):
        build(
            out=name, method="sail-mix", route_weights="dpp=0.3,dpr=0.4", num_train_epochs=1, max_steps=-1,
            learning_rate=0.0, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        ).train()  # fmt: skip
        lines = tiny.lines(tmp_path / name / "pairs.jsonl")
        written.append(sorted((each["row_id"], each["route"], str(each["token_ids"]), each["p"]) for each in lines))
    assert written[0] == written[1] == written[2] == written[3]
    assert len(written[0]) > 12


@pytest.mark.parametrize("method", ["sail-mix", "online-dpo", "iterative-dpo"])
def test_every_pair_belongs_to_its_prompt(build: Build, tmp_path: Path, method: str) -> None:
    """Acceptance tests 20 and 21: provenance under shuffling and mixed routes.

    The prompt of every recorded pair is its row's own, its answers are those its own stream draws from its own prompt,
    and every routed visit of the run, and no other, has its pair.
    """
    count = 30
    # Answers of the first epoch are drawn from the untouched weights, so they can be drawn again.
    trainer = build(
        method=method, data=tiny.preferences(count), num_train_epochs=2, max_steps=-1, learning_rate=0.0,
        per_device_train_batch_size=3, gradient_accumulation_steps=2, **_rounds(method),
    )  # fmt: skip
    trainer.train()
    written = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    by_row = {row.prompt.row_id: row for row in trainer.train_dataset}
    for each in written:
        assert each["prompt"].startswith(f"question {each['row_id']}: ")
        [group] = trainer.engine.generate(
            [by_row[each["row_id"]].prompt], n=2, sampling=trainer.args.sampling, streams=[tuple(each["stream"])],
            seed=trainer.args.seed, policy_version=0,
        )  # fmt: skip
        assert sorted(list(c.token_ids) for c in group.completions) == sorted(each["token_ids"])
        assert each["stream"] == ["sample", each["row_id"], each["epoch"]]
    expected = {
        (epoch, row, route.name)
        for epoch in range(2)
        for row in range(count)
        if (route := draw_route(trainer.method, trainer.args.seed, row, epoch)) and route.draws
    }
    assert {(each["epoch"], each["row_id"], each["route"]) for each in written} == expected
    assert len(written) == len(expected)


def test_distinct_online_prompts_over_a_thousand_steps(tokenizer: Any) -> None:
    """Acceptance test 20: 1,000 steps visit as many distinct online prompts as rows were routed, up to repeats.

    Steps are made without a language model: an engine that says what it is told.
    """
    from setsail import methods
    from setsail.core import Completion, Prompt, Row, Sampling
    from setsail.engines import ScriptedEngine
    from setsail.training.groups import GroupMaker

    engine = ScriptedEngine(lambda prompt, k: Completion(token_ids=(prompt.row_id, k), text=f"{prompt.row_id} {k}"))
    method = methods.get("sail-dpp")
    maker = GroupMaker(method, lambda source: engine, None, sampling=Sampling(), n=2, seed=0)
    data = Completion(token_ids=(1,), text="data")
    rows = [Row(prompt=Prompt(row_id=i, text=str(i), token_ids=(i,)), chosen=data, rejected=data) for i in range(3000)]
    online: set[int] = set()
    routed: set[int] = set()
    for step in range(1000):
        batch = [rows[(4 * step + i) % 3000] for i in range(4)]
        epoch = 4 * step // 3000
        made = maker.make(epoch, batch, policy_version=step)
        for (_, row_id), pairs in made.groups.items():
            for pair in pairs:
                assert pair.prompt.row_id == row_id
                if pair.route == "dpp":
                    assert pair.first.text == f"{row_id} 0"
                    online.add(row_id)
        routed |= {row.prompt.row_id for row in batch if maker.route(epoch, row) is not None}
    assert online == routed
    assert len(online) > 1000


def test_a_routed_row_has_no_offline_pair(build: Build) -> None:
    """Acceptance test 21: a row is trained as what its route says, once; counts are logged."""
    trainer = build(method="sail-mix", num_train_epochs=1, max_steps=-1, logging_steps=100)
    taken: list[Any] = []
    prepare = trainer.steps.prepare

    def spy(*args: Any) -> Any:
        batches = prepare(*args)
        taken.extend(pair for batch in batches for pair in batch.groups)
        return batches

    trainer.steps.prepare = spy  # type: ignore[method-assign]
    trainer.train()
    routes = {row: draw_route(trainer.method, trainer.args.seed, row, 0) for row in range(24)}
    assert {pair.prompt.row_id: pair.route for pair in taken} == {
        row: "offline" if route is None else route.name for row, route in routes.items()
    }
    assert len(taken) == 24
    assert len(Counter(pair.route for pair in taken)) >= 3


def test_length_limited_answers(build: Build, tmp_path: Path) -> None:
    """Acceptance test 19: an answer that was cut has no EOS, is left out of the correction, and is counted."""
    trainer = build(method="sail-dpr", route_weights="dpr=0.8", max_completion_length=4, max_steps=4, logging_steps=4)
    eos = trainer.processing_class.eos_token_id
    trainer.train()
    written = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    sides = [
        (ids, done, length)
        for each in written
        for ids, done, length in zip(each["token_ids"], each["finished"], each["lengths"], strict=True)
    ]
    assert {done for _, done, _ in sides} == {True, False}
    for ids, done, length in sides:
        assert (eos in ids) is done
        assert ids.count(eos) <= 1
        assert len(ids) == length <= 4
        assert done or length == 4
    log = trainer.state.log_history[0]
    assert log["sail/dpr/truncated"] == pytest.approx(sum(not done for _, done, _ in sides) / len(sides))
    assert log["completions/clipped_ratio"] == log["sail/dpr/truncated"]
    assert log["sail/dpr/length"] == pytest.approx(sum(length for *_, length in sides) / len(sides))


@pytest.mark.parametrize("limit", [1, 10])
def test_cut_answers_take_no_part_in_the_correction(build: Build, model_path: str, moved_path: str, limit: int) -> None:
    """Acceptance test 19: where every answer is cut, a correction changes no gradient; where some finish, it does."""
    recorders = []
    for name, correction in (("with", 0.5), ("without", 0.0)):
        recorder = tiny.Recorder()
        trainer = build(
            out=name, method="online-dpo", model=moved_path, ref_model=model_path, max_steps=1, max_grad_norm=0.0,
            route_corrections={"dpr": correction}, max_completion_length=limit, callbacks=[recorder],
        )  # fmt: skip
        if limit == 1:
            tiny.favor_eos(trainer.model, -50.0)
        trainer.train()
        recorders.append(recorder)
    difference = tiny.relative_difference(recorders[0].gradients[0], recorders[1].gradients[0])
    assert (difference == 0) is (limit == 1)


@pytest.mark.parametrize(("processes", "rows", "batch"), [(2, 21, 4), (3, 10, 2), (2, 3, 4), (4, 17, 1), (2, 16, 4)])
def test_repeated_rows_are_left_out(processes: int, rows: int, batch: int) -> None:
    """Against the loader that deals batches to processes: together they keep each row once, and none has fewer
    micro-batches than another."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    kept: list[int] = []
    counts = []
    for process in range(processes):
        sampler = BatchSampler(SequentialSampler(range(rows)), batch, drop_last=False)
        dealt = list(BatchSamplerShard(sampler, processes, process, even_batches=True))
        feed = Feed(process=process, processes=processes, rows=rows, batch_size=batch)
        counts.append(len(dealt))
        iterator = iter([{"rows": numbers} for numbers in dealt])
        feed.read(iterator, 1, 0)
        feed.read(iterator, len(dealt), 1)
        taken = feed.take(len(dealt))
        assert len(taken) == len(dealt)
        kept += [row for micro in taken for row in micro.rows]
    assert sorted(kept) == list(range(rows))
    assert len(set(counts)) == 1
