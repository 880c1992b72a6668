"""The picture of reward against KL."""

from __future__ import annotations

import builtins
import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from setsail.core import ConfigError, DataError
from setsail.evaluation import FrontierPoint, Interval, draw_frontier, undominated
from setsail.evaluation.frontier import _apart, _style


def point(name: str, kl: float, reward: float, spread: float = 0.1) -> FrontierPoint:
    return FrontierPoint(
        name=name,
        kl=Interval(kl, kl - spread, kl + spread, 0.95, 100),
        reward=Interval(reward, reward - spread, reward + spread, 0.95, 100),
    )


def test_undominated_points() -> None:
    points = [point("a", 3, 0.5), point("b", 1, 0.4), point("c", 2, 0.6), point("d", 1, 0.3), point("e", 5, 0.7)]
    assert [p.name for p in undominated(points)] == ["b", "c", "e"]
    assert undominated([]) == []


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_written(tmp_path: Path, suffix: str) -> None:
    points = [point("DPO", 1, 0.2), point("DPO", 4, 0.5), point("SAIL-DPP", 2, 0.6)]
    path = draw_frontier(points, tmp_path / f"frontier{suffix}", start=0.0)
    assert path.stat().st_size > 5000
    if suffix == ".png":
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(path.read_bytes()[16:20], "big") == 800


@pytest.mark.parametrize(
    "points",
    [
        [point("one", 0.0, 0.5, spread=0.0)],
        [point("negative", -0.2, 0.5)],
        [
            FrontierPoint(
                name="m", kl=Interval(1, math.nan, math.nan, 0.95, 1), reward=Interval(1, math.nan, math.nan, 0.95, 1)
            )
        ],
        [point(f"method number {index} with a long name", index, index / 10) for index in range(14)],
    ],
)
def test_unusual_points_can_be_drawn(points: list[FrontierPoint], tmp_path: Path) -> None:
    assert draw_frontier(points, tmp_path / "f.png").is_file()


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no points to draw"):
        draw_frontier([], tmp_path / "f.png")
    with pytest.raises(DataError, match="'m' has KL nan"):
        draw_frontier([point("m", math.nan, 0.5)], tmp_path / "f.png")


def test_without_matplotlib_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'setsail\[report\]'"):
        draw_frontier([point("m", 1, 0.5)], tmp_path / "f.png")


def test_names_stand_apart_in_order() -> None:
    placed = _apart([0.5, 0.5, 0.52, 0.9, 0.51], 0.05)
    order = sorted(placed)
    assert all(b - a >= 0.05 - 1e-12 for a, b in itertools.pairwise(order))
    assert placed[3] == 0.9
    assert placed[0] < placed[4] < placed[2]


def test_every_curve_has_a_style_of_its_own() -> None:
    assert len({_style(index) for index in range(36)}) == 36


def test_numbers_alone_load_neither_torch_nor_matplotlib() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from setsail.evaluation import win_rate\n"
        "win_rate([1, 0.5]); print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
