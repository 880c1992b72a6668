"""Every metric that a short run logs is on the page of metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import text
from rendered import DOCS

from setsail import SailConfig, SailTrainer, methods, world

ROUTES = ("offline", "ddp", "dpp", "dpr")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with every route, the added term, and an evaluation, on the embedded world."""
    out = tmp_path_factory.mktemp("metrics") / "run"
    mixed = methods.get("sail-mix")
    everything = mixed.with_parts(addends=methods.get("sail-revkl").addends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SailConfig, "resolved_method", lambda self: everything)
        config = SailConfig(
            output_dir=str(out),
            method="sail-mix",
            max_steps=2,
            per_device_train_batch_size=24,
            max_completion_length=8,
            logging_steps=1,
            eval_generations=2,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        with Path(world.held_out_path()).open(encoding="utf-8") as lines:
            prompt = json.loads(next(lines))["prompt"]
        say = [[{"role": "assistant", "content": content}] for content in ("It is 2.", "No.")]
        rows = [{"prompt": prompt, "chosen": say[0], "rejected": say[1]} for _ in range(48)]
        trainer = SailTrainer(
            str(world.model_path()),
            args=config,
            train_dataset=rows,
            eval_dataset=rows[:2],
            labeler=lambda completions, **columns: [len(each[0]["content"]) / 10 for each in completions],
        )
        trainer.train()
        trainer.evaluate()
    return out


def _logged(run: Path) -> set[str]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {metric for line in lines for metric in json.loads(line)}


def _as_on_the_page(metric: str) -> str:
    return re.sub(rf"^sail/(?:{'|'.join(ROUTES)})/", "sail/<route>/", metric)


def test_every_logged_metric_is_on_the_page(run: Path) -> None:
    named = set(re.findall(r"`([\w/<>]+)`", text(DOCS / "metrics.md")))
    assert sorted({_as_on_the_page(metric) for metric in _logged(run)} - named) == []


def test_every_metric_on_the_page_is_logged(run: Path) -> None:
    tables = re.findall(r"^\| (`[^|]+) \|", text(DOCS / "metrics.md"), re.MULTILINE)
    named = {metric for cell in tables for metric in re.findall(r"`([\w/<>]+)`", cell)}
    assert sorted(named - {_as_on_the_page(metric) for metric in _logged(run)}) == []


def test_the_run_logged_every_route(run: Path) -> None:
    assert {metric.split("/")[1] for metric in _logged(run) if metric.count("/") == 2} == {*ROUTES, "seconds"}


def test_what_the_page_calls_known_beforehand_is_so(run: Path) -> None:
    first = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for route in ROUTES:
        assert first[f"sail/{route}/loss"] == pytest.approx(0.6931, abs=1e-3)
        assert first[f"sail/{route}/margin"] == pytest.approx(0, abs=1e-3)
    for route in ("ddp", "dpp"):
        assert first[f"sail/{route}/p_entropy"] == pytest.approx(0.6931, abs=1e-3)
    assert first["sail/dpp/staleness"] == first["sail/dpr/staleness"] == 0
    assert first["sail/dpr/kl_k3"] >= 0


def test_the_run_directory_page_names_what_a_run_writes(run: Path) -> None:
    page = text(DOCS / "run-directory.md")
    written = {path.name for path in run.iterdir() if path.is_file()}
    assert {"config.yaml", "run.json", "environment.json", "metrics.jsonl", "pairs.jsonl"} <= written
    for name in written:
        assert f"`{name}`" in page
    record = json.loads((run / "pairs.jsonl").read_text(encoding="utf-8").split("\n")[0])
    for field in record:
        assert f"`{field}`" in page, f"docs/run-directory.md lacks the field {field} of pairs.jsonl"
