"""What is written and measured where a method learns from groups: of one answer, of four, and of pairs by value."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build

from setsail import SailConfig, methods
from setsail.core import Completion, Group, Prompt
from setsail.data import load_preferences
from setsail.methods import Method
from setsail.training.run_directory import file_of, group_record

FEW: dict[str, Any] = {"per_device_train_batch_size": 4, "max_steps": 6, "learning_rate": 1e-4}


def _logs(trainer: Any) -> list[dict[str, float]]:
    return [log for log in trainer.state.log_history if "loss" in log]


def _lists(monkeypatch: pytest.MonkeyPatch) -> Method:
    """SPPO over all four answers at once instead of best and worst."""
    base = methods.get("sppo").configured(generations=4, staleness=0)
    [route] = base.routes
    method = base.with_parts(routes=(dataclasses.replace(route, pairing="all"),))
    monkeypatch.setattr(SailConfig, "resolved_method", lambda self: method)
    return method


def test_single_answers_have_a_file_of_their_own(build: Build, tmp_path: Path) -> None:
    """A file of pairs holds pairs alone, so that it stays a preference set."""
    trainer = build(**FEW, **tiny.shortened("raft"))
    trainer.train()
    run = tmp_path / "run"
    assert not (run / "pairs.jsonl").exists()
    records = tiny.lines(run / "groups.jsonl")
    assert len(records) == 24
    for record in records:
        assert len(record["completions"]) == len(record["values"]) == len(record["token_ids"]) == 1
        assert not {"chosen", "rejected", "p"} & record.keys()
        assert record["values"] == record["scores"] == tiny.reward([""], record["completions"])


def test_lists_are_written_as_scored_answers(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of four: our own reader takes them as lists, best and worst included."""
    _lists(monkeypatch)
    trainer = build(**FEW)
    trainer.train()
    records = tiny.lines(tmp_path / "run" / "groups.jsonl")
    assert all(len(record["completions"]) == 4 for record in records)
    lists = load_preferences(tmp_path / "run" / "groups.jsonl", needs="lists")
    assert len(lists) > 10
    by_row = {record["row_id"]: record for record in records}
    for one in lists:
        assert set(one.scores) <= set(by_row[one.columns["row_id"]]["scores"])
        assert one.scores[one.answers.index(one.chosen)] == max(one.scores)


@pytest.mark.parametrize("name", ["xpo", "sppo", "dno", "rs-dpo", "spin", "egpo"])
def test_pairs_are_a_preference_set(build: Build, tmp_path: Path, name: str) -> None:
    """Every line is read again, and says the same."""
    trainer = build(**FEW, **tiny.shortened(name))
    trainer.train()
    records = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    loaded = load_preferences(tmp_path / "run" / "pairs.jsonl", max_faulty=0.9)
    faulty = sum(count.total for count in loaded.report.faults.values())
    assert len(loaded) + faulty == len(records) >= 12
    # Short answers of a random model are sometimes empty or alike; nothing else is wrong with them.
    assert set(loaded.report.faults) <= {"empty answer", "chosen equal to rejected"}
    for example in loaded:
        record = records[example.source_row]
        assert (example.chosen, example.rejected, example.p) == (record["chosen"], record["rejected"], record["p"])
        assert example.p >= 0.5


def _group(p: float | None, values: tuple[float, ...] | None, count: int) -> Group:
    sides = tuple(Completion(token_ids=(i,), text=f"answer {i}") for i in range(count))
    return Group(
        prompt=Prompt(row_id=0, text="q", token_ids=(1,)), completions=sides, p=p, values=values, route="r", labeler="x"
    )


@pytest.mark.parametrize(
    ("p", "values", "chosen", "stated"),
    [
        (0.7, None, "answer 0", 0.7),
        (0.25, None, "answer 1", 0.75),
        (0.25, (0.9, 0.1), "answer 1", 0.75),
        (None, (0.1, 0.9), "answer 1", None),
        (None, None, "answer 0", None),
    ],
)
def test_chosen_is_what_the_label_says_and_else_what_the_values_say(
    p: float | None, values: Any, chosen: str, stated: float | None
) -> None:
    record = group_record(_group(p, values, 2), step=0)
    assert (record["chosen"], record["p"]) == (chosen, stated)
    assert record["values"] is None or record["values"][0] == values[int(chosen[-1])]
    assert file_of(record) == "pairs"
    assert file_of(group_record(_group(None, (0.1,), 1), step=0)) == "groups"


def test_a_drawn_group_of_any_size_can_be_shown(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    build(**{**FEW, "max_steps": 1}, **tiny.shortened("raft"), log_completions=True).train()
    shown = capsys.readouterr().out
    assert "route dpr: question" in shown
    assert "answer (value " in shown


# Metrics.


def test_beta_is_logged_where_the_objective_has_one(build: Build) -> None:
    for name, expected in (("raft", None), ("superhf", None), ("sppo", 1e-3)):
        trainer = build(**{**FEW, "max_steps": 1}, **tiny.shortened(name), out=name)
        trainer.train()
        assert _logs(trainer)[0].get("beta") == expected


def test_lists_have_a_loss_and_lengths_but_no_margin(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    _lists(monkeypatch)
    trainer = build(**FEW)
    trainer.train()
    seen = {name for log in _logs(trainer) for name in log}
    assert {"sail/dpr/loss", "sail/dpr/length", "sail/dpr/score", "sail/dpr/kl_k1", "beta"} <= seen
    assert not {"sail/dpr/margin", "sail/dpr/accuracy", "rewards/chosen", "rewards/margins"} & seen


def test_pairs_that_are_learnt_from_by_value_are_measured_by_their_preference(build: Build, tmp_path: Path) -> None:
    """SPPO reads win rates; margin, accuracy and rewards are of the labeler's preference between best and worst."""
    trainer = build(**FEW, **tiny.shortened("sppo"))
    trainer.train()
    first = _logs(trainer)[0]
    written = tiny.lines(tmp_path / "run" / "pairs.jsonl")
    assert all(0 <= value <= 1 for each in written for value in each["values"])
    assert all(each["values"] != each["scores"] for each in written)
    entropies = [-(each["p"] * math.log(each["p"]) + (1 - each["p"]) * math.log(1 - each["p"])) for each in written]
    assert min(entropies) <= first["sail/dpr/p_entropy"] <= max(entropies)
    assert first["rewards/margins"] == pytest.approx(first["rewards/chosen"] - first["rewards/rejected"], abs=1e-9)
    assert _logs(trainer)[3]["sail/dpr/accuracy"] > 0.5


def test_no_kl_is_claimed_to_a_reference_without_a_normalizer(build: Build) -> None:
    """INPO's reference is a product of two policies; evaluation says the rest."""
    trainer = build(**FEW, **tiny.shortened("inpo"), eval_dataset=tiny.preferences(4))
    trainer.train()
    found = trainer.evaluate()
    assert not [name for log in [*_logs(trainer), found] for name in log if "kl_k" in name]
    assert {"eval_loss", "eval_completions/mean_length", "eval_rewards/margins"} <= found.keys()


@pytest.mark.parametrize(("name", "metric"), [("xpo", "sail/optimism"), ("superhf", "sail/token_forward_kl")])
def test_added_terms_are_what_they_say(build: Build, tmp_path: Path, name: str, metric: str) -> None:
    """At the start: the mean log-prob of the reference's own answers, and a divergence of 0."""
    trainer = build(**{**FEW, "max_steps": 2}, **tiny.shortened(name))
    trainer.train()
    first, second = _logs(trainer)
    if name == "superhf":
        assert first[metric] == pytest.approx(0, abs=1e-6)
        assert second[metric] > 1e-7
        return
    written = [each for each in tiny.lines(tmp_path / "run" / "pairs.jsonl") if each["step"] == 0]
    drawn = {
        (each["row_id"], logp)
        for each in written
        for logp, who in zip(each["logps"], each["origins"], strict=True)
        if who == "reference"
    }
    assert first[metric] == pytest.approx(sum(logp for _, logp in drawn) / len(drawn), abs=1e-4)
    assert len(drawn) == 4
