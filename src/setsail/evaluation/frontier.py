"""Reward against KL: how much reward each method buys for how much distance from the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setsail.core import ConfigError, DataError
from setsail.evaluation.intervals import Interval

# Okabe and Ito's colors without yellow and black: told apart by color-blind readers, and by a marker each besides.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, FAINT = "#222222", "#8a8a8a"
REFERENCE = "reference"
WIDTH, HEIGHT, DPI = 8.0, 5.0, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One policy: a method at one strength, seed or training step.

    Attributes:
        name: the method; points of one name are one curve.
        kl: KL(pi || pi_ref) of a whole answer in nats, with its interval.
        reward: the held-out reward, or win rate, with its interval.
    """

    name: str
    kl: Interval
    reward: Interval


def undominated(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The points that no other beats: more reward at no more KL, or as much reward at less; in order of KL.

    >>> def at(kl, reward):
    ...     return FrontierPoint(name="m", kl=Interval(kl, kl, kl, 0.95, 1), reward=Interval(reward, 0, 1, 0.95, 1))
    >>> [point.kl.estimate for point in undominated([at(3, 0.5), at(1, 0.4), at(2, 0.6)])]
    [1, 2]
    """
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda point: (point.kl.estimate, -point.reward.estimate)):
        if point.reward.estimate > best:
            best = point.reward.estimate
            kept.append(point)
    return kept


def draw_frontier(
    points: Sequence[FrontierPoint],
    path: str | Path,
    *,
    title: str = "Reward against divergence",
    reward_label: str = "held-out reward",
    start: float | None = None,
) -> Path:
    """Draw reward against KL as a picture: a curve a method, intervals as bars, names beside the curves.

    The horizontal axis is spaced by sqrt(KL), along which best attainable rewards rise about linearly near the
    reference, and labeled in nats. Estimates below zero, which k1 can give, are drawn at zero.

    Args:
        points: at least one.
        path: of the picture; its suffix chooses the format (``.png``, ``.svg``, ``.pdf``).
        title: above the picture, left aligned.
        reward_label: what the vertical axis shows, with its unit if it has one.
        start: reward of the reference policy, the point at KL 0; drawn with a line across for comparison.

    Returns:
        ``path``.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: no points, or an estimate that is not finite.
    """
    curves = _curves(points)
    figure, axes = _canvas(max(len(name) for name in [*curves, REFERENCE]))
    _decorate(figure, axes, title, reward_label)
    if start is not None:
        axes.axhline(start, color=FAINT, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
        axes.plot([0], [start], marker="o", markersize=7, color="white", markeredgecolor=INK, zorder=4, clip_on=False)
    for index, curve in enumerate(curves.values()):
        _draw_curve(axes, curve, *_style(index))
    _limits(axes, points, start)
    _name_curves(axes, curves, start)
    path = Path(path)
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def _curves(points: Sequence[FrontierPoint]) -> dict[str, list[FrontierPoint]]:
    """The points of each name in order of KL, names in order of appearance."""
    if not points:
        raise DataError("no points to draw: a frontier takes at least one policy with its KL and its reward")
    for point in points:
        if not (math.isfinite(point.kl.estimate) and math.isfinite(point.reward.estimate)):
            raise DataError(
                f"{point.name!r} has KL {point.kl.estimate} and reward {point.reward.estimate}: only finite ones can "
                "be drawn"
            )
    names = dict.fromkeys(point.name for point in points)
    return {name: sorted((p for p in points if p.name == name), key=lambda p: p.kl.estimate) for name in names}


def _canvas(longest_name: int) -> tuple[Any, Any]:
    """A figure of its own: nothing of a user's pyplot state is read or changed, no display is needed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "drawing the frontier needs matplotlib, which is not installed: pip install 'setsail[report]'"
        ) from None
    figure = Figure(figsize=(WIDTH, HEIGHT))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.095, right=max(0.5, 0.93 - 0.0118 * longest_name), top=0.88, bottom=0.125)
    return figure, figure.add_subplot()


def _decorate(figure: Any, axes: Any, title: str, reward_label: str) -> None:
    axes.set_xscale("function", functions=(_root, _square))
    axes.set_xlabel("KL(policy || reference), nats per answer (square-root spacing)", color=INK, fontsize=11)
    axes.set_ylabel(reward_label, color=INK, fontsize=11)
    figure.text(0.095, 0.93, title, color=INK, fontsize=14, fontweight="bold")
    axes.tick_params(colors=INK, labelsize=10, length=0)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _style(index: int) -> tuple[str, str]:
    """Color and marker of a curve; beyond six curves colors come again with other markers."""
    return COLORS[index % len(COLORS)], MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


def _root(x: Any) -> Any:
    return abs(x) ** 0.5


def _square(x: Any) -> Any:
    return x**2


def _bars(interval: Interval, floor: float = -math.inf) -> tuple[float, float, float]:
    """Estimate and lengths of the bars below and above it; no bar where there is no interval."""
    middle = max(interval.estimate, floor)
    low, high = (middle if math.isnan(end) else max(end, floor) for end in (interval.low, interval.high))
    return middle, max(0.0, middle - low), max(0.0, high - middle)


def _draw_curve(axes: Any, curve: Sequence[FrontierPoint], color: str, marker: str) -> None:
    kl = [_bars(point.kl, 0.0) for point in curve]
    reward = [_bars(point.reward) for point in curve]
    x, y = [bar[0] for bar in kl], [bar[0] for bar in reward]
    axes.errorbar(
        x,
        y,
        xerr=[[bar[1] for bar in kl], [bar[2] for bar in kl]],
        yerr=[[bar[1] for bar in reward], [bar[2] for bar in reward]],
        fmt="none",
        ecolor=color,
        elinewidth=1.4,
        alpha=0.6,
        zorder=2,
    )
    look = {"color": color, "marker": marker, "markersize": 7, "markeredgecolor": "white", "linewidth": 1.8}
    axes.plot(x, y, **look, zorder=3, clip_on=False)  # whole also where it sits on the axis, at KL 0


def _limits(axes: Any, points: Sequence[FrontierPoint], start: float | None) -> None:
    """Room for the bars, the origin always in the picture, and round ticks that the spacing keeps apart."""
    right = max(sum(_bars(point.kl, 0.0)[::2]) for point in points) or 1.0
    axes.set_xlim(0, right * 1.06)
    steps = [step * 10.0**power for power in range(-6, 7) for step in (1, 2, 3, 5)]
    ticks, last = [0.0], 0.0
    for tick in steps:
        # A tick wherever it stands a twelfth of the axis from the one before.
        if tick <= right * 1.06 and math.sqrt(tick) - math.sqrt(last) > math.sqrt(right) / 12:
            ticks.append(tick)
            last = tick
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    lows = [bar[0] - bar[1] for bar in (_bars(point.reward) for point in points)]
    highs = [bar[0] + bar[2] for bar in (_bars(point.reward) for point in points)]
    across = [] if start is None else [start]
    low, high = min(lows + across), max(highs + across)
    margin = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def _name_curves(axes: Any, curves: dict[str, list[FrontierPoint]], start: float | None) -> None:
    """Marker and name at the right edge, at the height of the curve's end, moved apart where they would overlap."""
    wanted = [
        (curve[-1].reward.estimate, name, _style(index), "white") for index, (name, curve) in enumerate(curves.items())
    ]
    if start is not None:
        wanted.append((start, REFERENCE, ("white", "o"), INK))
    low, high = axes.get_ylim()
    heights = _apart([(y - low) / (high - low) for y, *_ in wanted], 0.055)
    for height, (_, name, (color, marker), edge) in zip(heights, wanted, strict=True):
        key = {"marker": marker, "markersize": 7, "color": color, "markeredgecolor": edge}
        axes.plot([1.0], [height], **key, transform=axes.transAxes + _shifted(axes, 14), clip_on=False)
        axes.text(1.0, height, name, transform=axes.transAxes + _shifted(axes, 24), color=INK, fontsize=11, va="center")


def _shifted(axes: Any, points: float) -> Any:
    """To the right by so many points, whatever the width of the axes."""
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, changed as little as a simple sweep can, so that neighbors are at least ``gap`` apart.

    >>> [round(height, 2) for height in _apart([0.5, 0.51, 0.1], 0.1)]
    [0.46, 0.56, 0.1]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    blocks: list[tuple[float, list[int]]] = []
    for index in order:
        center, members = heights[index], [index]
        # Names that would touch form one block around their mean height.
        while blocks and center - gap * len(members) / 2 < blocks[-1][0] + gap * len(blocks[-1][1]) / 2:
            before, others = blocks.pop()
            total = len(others) + len(members)
            center = (before * len(others) + center * len(members)) / total
            members = others + members
        blocks.append((center, members))
    placed = list(heights)
    for center, members in blocks:
        for rank, index in enumerate(members):
            placed[index] = center + gap * (rank - (len(members) - 1) / 2)
    return placed
