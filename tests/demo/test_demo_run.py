"""The demo, as a user runs it but with two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from setsail.cli.main import main
from setsail.demo.run import fresh_directory


@pytest.mark.slow
def test_demo_trains_compares_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    assert (
        main(["demo", "--steps", "3", "--prompts", "8", "--output_dir", str(output), "--methods", "dpo", "sail-dpr"])
        == 0
    )
    shown = capsys.readouterr().out
    for words in ("gold reward", "wins vs start", "sail-dpr", "least gain:", "most gain:", "Expected time"):
        assert words in shown
    results = json.loads((output / "results.json").read_text())["results"]
    assert [result["method"] for result in results] == ["dpo", "sail-dpr"]
    for result in results:
        first, *_, last = result["snapshots"]
        assert (first["step"], last["step"]) == (0, 3)
        # At the start policy and reference are one: no divergence, and every comparison is a tie.
        assert first["kl"]["estimate"] == pytest.approx(0, abs=1e-5)
        assert first["win_rate"]["estimate"] == 0.5
        assert last["reward"]["low"] <= last["reward"]["estimate"] <= last["reward"]["high"]
        assert json.loads((output / result["method"] / "run.json").read_text())["status"] == "finished"
    # The same start for every method, measured in different processes.
    assert results[0]["snapshots"][0]["answers"] == results[1]["snapshots"][0]["answers"]
    assert (output / "frontier.png").stat().st_size > 10_000


def test_an_earlier_demo_is_never_touched(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    assert fresh_directory(wanted) == wanted
    wanted.mkdir()
    assert fresh_directory(wanted).name == "demo-2"
    (tmp_path / "demo-2").mkdir()
    assert fresh_directory(wanted).name == "demo-3"
