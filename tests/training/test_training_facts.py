"""Numbers of the global batch that objectives ask for: whose they are, and that nobody's batch size shows in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from threading import Barrier, Thread
from typing import Any

import pytest
import tiny
import torch
from tiny import Build, StopAfter
from torch import Tensor

from setsail import methods
from setsail.core import Completion, Group, Prompt
from setsail.objectives import GroupLogProbs, bco_reward_shift, kto_reference_point
from setsail.training.facts import KEEP, FactMaker


def _group(row: int, values: Sequence[float], prompt: tuple[int, ...] | None = None, logp: float = -1.5) -> Group:
    """A prompt of its own, and one answer a value."""
    answers = [
        Completion(token_ids=(10 * row + k, 3), text=f"{row}.{k}", logp=logp - k, origin="policy")
        for k in range(len(values))
    ]
    asked = Prompt(row_id=row, text=f"{row}", token_ids=(100 + row,) if prompt is None else prompt)
    return Group(prompt=asked, completions=tuple(answers), values=tuple(values), route="dpr", labeler="test")


def _scored(name: str) -> Callable[[Sequence[Prompt], Sequence[Completion]], list[Tensor]]:
    """Log-probs that depend on prompt and answer, two tokens each."""

    def one(prompt: Prompt, answer: Completion) -> Tensor:
        said = hashlib.sha256(repr((name, prompt.token_ids, answer.token_ids)).encode()).digest()
        return -torch.tensor([said[0] / 64, said[1] / 64], dtype=torch.float32)

    return lambda prompts, answers: [one(*each) for each in zip(prompts, answers, strict=True)]


POLICY, REFERENCE = _scored("policy"), _scored("reference")


def _maker(name: str, gather: Callable[[list[Any]], list[Any]] = list) -> FactMaker:
    return FactMaker(methods.get(name), score_policy=POLICY, score_reference=REFERENCE, gather=gather)


def _ratio(prompt: Group, answer: Completion) -> float:
    [policy], [reference] = POLICY([prompt.prompt], [answer]), REFERENCE([prompt.prompt], [answer])
    return float(policy.double().sum() - reference.double().sum())


def _on_two_processes(name: str, parts: Sequence[Sequence[Group]]) -> list[Any]:
    """What each of two makers says, their gathers joined; each waits for the other, as processes do."""
    barrier, shared, said = Barrier(2, timeout=20), [[], []], [None, None]

    def gather(process: int) -> Callable[[list[Any]], list[Any]]:
        def joined(mine: list[Any]) -> list[Any]:
            shared[process] = list(mine)
            barrier.wait()
            everything = [*shared[0], *shared[1]]
            barrier.wait()
            return everything

        return joined

    def work(process: int) -> None:
        said[process] = _maker(name, gather(process)).make(parts[process])

    threads = [Thread(target=work, args=(process,)) for process in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


# Of each group.


def test_the_old_policy_is_the_log_prob_at_sampling() -> None:
    made = _maker("grpo").make([_group(0, [1.0, 2.0, 3.0]), _group(1, [0.0, 1.0], logp=-4.0)])
    assert made == {"old_policy": [[-1.5, -2.5, -3.5], [-4.0, -5.0]]}


def test_the_mean_of_a_group_is_its_own() -> None:
    assert _maker("a-lol").make([_group(0, [1.0, 2.0, 6.0]), _group(1, [0.5])]) == {"baseline": [3.0, 0.5]}


def test_a_method_that_asks_for_nothing_gets_nothing() -> None:
    assert _maker("rloo").make([_group(0, [1.0, 2.0])]) == {}


# Of the batch.


def test_the_batch_mean_is_that_of_the_other_rows() -> None:
    groups = [_group(row, [value]) for row, value in ((3, 1.0), (0, 2.0), (5, 6.0))]
    assert _maker("reinforce").make(groups) == {"baseline": [4.0, 3.5, 1.5]}


def test_answers_of_one_row_are_no_others_to_each_other() -> None:
    """Two answers of row 0, each a group of its own: both are measured against row 1."""
    groups = [_group(0, [1.0]), _group(0, [5.0]), _group(1, [7.0])]
    assert _maker("reinforce").make(groups) == {"baseline": [7.0, 7.0, 3.0]}


def test_a_row_alone_has_no_baseline() -> None:
    assert _maker("reinforce").make([_group(0, [5.0])]) == {"baseline": [0.0]}
    assert _maker("reinforce").make([]) == {"baseline": []}


def test_the_reference_point_puts_the_next_rows_answer_behind_each_prompt() -> None:
    groups = {row: _group(row, [1.0]) for row in (4, 1, 9)}
    made = _maker("kto").make(list(groups.values()))
    pairs = ((1, 4), (4, 9), (9, 1))
    ratios = torch.tensor([[_ratio(groups[x], groups[y].first)] for x, y in pairs], dtype=torch.float64)
    wanted = kto_reference_point(GroupLogProbs(ratios, torch.zeros_like(ratios))).item()
    assert made["reference_point"] == pytest.approx(wanted, abs=1e-12)
    matched = sum(_ratio(groups[x], groups[x].first) for x in groups) / 3
    assert wanted != pytest.approx(matched, abs=1e-3)


@pytest.mark.parametrize("rows", [(1, 4, 9), (0, 1), (2, 3, 5, 7)])
def test_the_reference_point_is_not_negative(rows: tuple[int, ...]) -> None:
    groups = [_group(row, [1.0]) for row in rows]
    there = FactMaker(methods.get("kto"), score_policy=POLICY, score_reference=REFERENCE, gather=list).make(groups)
    back = FactMaker(methods.get("kto"), score_policy=REFERENCE, score_reference=POLICY, gather=list).make(groups)
    found = sorted([there["reference_point"], back["reference_point"]])
    assert found[0] == 0.0 < found[1]


def test_both_answers_to_one_prompt_are_never_put_behind_it() -> None:
    """A pair that is marked one by one is two rows with one prompt: neither is a wrong answer to it."""
    pair = [_group(row, [1.0], prompt=(50,)) for row in (0, 1)]
    assert _maker("kto").make(pair) == {"reference_point": 0.0}
    other = _group(2, [1.0])
    swapped = FactMaker(methods.get("kto"), score_policy=REFERENCE, score_reference=POLICY, gather=list)
    mean = sum([_ratio(pair[0], other.first), _ratio(pair[1], other.first), _ratio(other, pair[0].first)]) / 3
    found = [maker.make([*pair, other])["reference_point"] for maker in (_maker("kto"), swapped)]
    assert found == pytest.approx([max(0.0, mean), max(0.0, -mean)], abs=1e-12)
    assert max(found) > 0


def test_a_batch_of_one_row_has_no_wrong_answer() -> None:
    assert _maker("kto").make([_group(0, [1.0])]) == _maker("kto").make([]) == {"reference_point": 0.0}


def _midpoint(groups: Sequence[Group]) -> float:
    ratios = torch.tensor([[_ratio(group, group.first)] for group in groups], dtype=torch.float64)
    marks = torch.tensor([group.values for group in groups], dtype=torch.float64)
    return bco_reward_shift(GroupLogProbs(ratios, torch.zeros_like(ratios)), marks, 0.1).item()


def test_the_midpoint_runs_on_and_waits_for_both_kinds() -> None:
    maker = _maker("bco")
    assert maker.make([_group(0, [1.0])]) == {"shift": 0.0}
    first = [_group(0, [1.0]), _group(1, [-1.0]), _group(2, [1.0])]
    second = [_group(3, [-1.0]), _group(4, [1.0])]
    assert maker.make(first)["shift"] == pytest.approx(_midpoint(first), abs=1e-12)
    running = KEEP * _midpoint(first) + (1 - KEEP) * _midpoint(second)
    assert maker.make(second)["shift"] == pytest.approx(running, abs=1e-12)
    assert maker.make([_group(5, [-1.0])])["shift"] == pytest.approx(running, abs=1e-12)
    assert _midpoint(first) != pytest.approx(_midpoint(second), abs=1e-3)


def test_the_midpoint_is_what_a_checkpoint_holds() -> None:
    groups = [_group(0, [1.0]), _group(1, [-1.0])]
    maker, other = _maker("bco"), _maker("bco")
    maker.make(groups)
    other.load(maker.state())
    later = [_group(2, [1.0]), _group(3, [-1.0])]
    assert other.make(later) == maker.make(later) != _maker("bco").make(later)


# Of two processes.


@pytest.mark.parametrize("name", ["reinforce", "kto", "bco"])
@pytest.mark.parametrize("cut", [0, 1, 2, 4])
def test_two_processes_agree_with_one(name: str, cut: int) -> None:
    """However the rows are dealt, also where one process has none."""
    groups = [_group(row, [1.0 if row % 2 else -1.0]) for row in (7, 2, 5, 3)]
    whole, parts = _maker(name).make(groups), [groups[:cut], groups[cut:]]
    first, second = _on_two_processes(name, parts)
    for argument, fact in whole.items():
        if isinstance(fact, list):
            assert first[argument] + second[argument] == fact
        else:
            assert first[argument] == second[argument] == fact


# In training.

SPLITS = {"one": (6, 1), "two": (3, 2), "six": (1, 6)}
"""Rows of a micro-batch, and micro-batches of a step."""


def _trained(build: Build, name: str, out: str, **options: Any) -> Any:
    trainer = build(
        out=out, method=name, max_steps=3, learning_rate=1e-4, max_grad_norm=0.0, max_completion_length=8, **options
    )
    seen: list[Any] = []
    make = trainer.facts.make
    trainer.facts.make = lambda groups: seen.append(([g.prompt.row_id for g in groups], make(groups))) or seen[-1][1]
    trainer.train()
    return trainer, seen


@pytest.mark.parametrize("name", ["reinforce", "kto", "bco", "a-lol"])
def test_the_micro_batch_does_not_show(build: Build, name: str) -> None:
    """One batch of six, three twos and six ones: the same facts, and the same weights after three steps."""
    runs = {
        out: _trained(build, name, out, per_device_train_batch_size=size, gradient_accumulation_steps=count)
        for out, (size, count) in SPLITS.items()
    }
    whole, facts = runs["one"]
    assert any(value for _, made in facts for value in made.values())
    for other, found in (runs["two"], runs["six"]):
        assert [rows for rows, _ in found] == [rows for rows, _ in facts]
        for (_, made), (_, wanted) in zip(found, facts, strict=True):
            for argument, value in wanted.items():
                assert made[argument] == pytest.approx(value, abs=1e-4)
        assert tiny.relative_difference(tiny.weights(whole.model), tiny.weights(other.model)) < 1e-5


def test_the_old_policy_of_fresh_answers_is_the_policy(build: Build) -> None:
    """The ratio is 1 up to rounding at every step: what sampling returned is what scoring finds."""
    trainer = build(method="grpo", max_steps=3, num_generations=3, per_device_train_batch_size=3, learning_rate=1e-3)
    make, found = trainer.facts.make, []

    def compared(groups: Sequence[Group]) -> Any:
        made = make(groups)
        for group, old in zip(groups, made["old_policy"], strict=True):
            now = trainer.scorer.under_policy([group.prompt] * len(old), group.completions)
            found.extend(float(logps.sum()) - logp for logps, logp in zip(now, old, strict=True))
        return made

    trainer.facts.make = compared
    trainer.train()
    assert len(found) == 27
    assert max(map(abs, found)) < 1e-4


def test_a_run_of_bco_that_was_stopped_goes_on_with_its_midpoint(build: Build) -> None:
    options: dict[str, Any] = {
        "method": "bco", "max_steps": 6, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 3,
    }  # fmt: skip
    whole = build(out="whole", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        build(out="cut", callbacks=[StopAfter(4)], **options).train()
    resumed = build(out="cut", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.facts.midpoint == whole.facts.midpoint
    assert whole.facts.midpoint not in (None, 0.0)
    assert tiny.same(tiny.weights(whole.model), tiny.weights(resumed.model))
