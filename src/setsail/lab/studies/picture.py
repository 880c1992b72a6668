"""Figures of studies as pictures: light background, labeled axes, colors that color-blind readers tell apart.

matplotlib, of the ``report`` extra, is imported when a picture is drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from setsail.core import ConfigError
from setsail.lab.studies.recorded import as_plain
from setsail.lab.studies.records import Curve, Figure, Panel

# Okabe and Ito's colors without yellow, black last; each comes with a marker and a dash of its own.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#222222", "#8a8a8a"
WIDTHS, HEIGHT, DPI = {1: 8.0, 2: 12.0, 3: 16.0}, 4.4, 100
LEGEND_LINE = 0.22
DIGEST = "setsail-figure"


def digest(figure: Figure) -> str:
    """A fingerprint of the figure's numbers and words; a drawn PNG carries it, so that it can be told to be current."""
    return hashlib.sha256(json.dumps(as_plain(figure), sort_keys=True).encode()).hexdigest()[:32]


def draw(figure: Figure, path: str | Path) -> Path:
    """Draw the figure.

    Args:
        figure: panels and curves.
        path: of the picture, ``.png``.

    Returns:
        ``path``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise ConfigError(
            "drawing a study's figure needs matplotlib, which is not installed: pip install 'setsail[report]'"
        ) from None
    below = max(_legend_lines(panel) for panel in figure.panels)
    canvas = Canvas(figsize=(WIDTHS[len(figure.panels)], HEIGHT + LEGEND_LINE * below), layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(figure.title, color=INK, fontsize=14, fontweight="bold", x=0.01, ha="left")
    for index, panel in enumerate(figure.panels):
        _draw_panel(canvas.add_subplot(1, len(figure.panels), index + 1), panel)
    path = Path(path)
    canvas.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None, DIGEST: digest(figure)})
    return path


def _draw_panel(axes: Any, panel: Panel) -> None:
    _decorate(axes, panel)
    bars = [curve for curve in panel.curves if curve.style == "bars"]
    taken = 0
    for curve in panel.curves:
        index = taken if curve.color is None else curve.color
        taken += curve.color is None
        if curve.style == "bars":
            _draw_bars(axes, curve, index, len(bars), bars.index(curve))
        else:
            _draw_curve(axes, curve, index)
    if panel.x_scale == "sqrt":
        _label_roots(axes)
    for side, limits in (("x", panel.x_range), ("y", panel.y_range)):
        if limits is not None:
            getattr(axes, f"set_{side}lim")(*limits)
    for axis, scale in ((axes.xaxis, panel.x_scale), (axes.yaxis, panel.y_scale)):
        if scale == "log":
            _label_decades(axis)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
    _legend(axes, panel)


def _decorate(axes: Any, panel: Panel) -> None:
    for side, scale in (("x", panel.x_scale), ("y", panel.y_scale)):
        set_scale = getattr(axes, f"set_{side}scale")
        if scale == "sqrt":
            set_scale("function", functions=(_root, _square))
        elif scale == "log":
            set_scale("log")
    axes.set_title(panel.title, color=INK, fontsize=12, loc="left")
    axes.set_xlabel(panel.x_label, color=INK, fontsize=11)
    axes.set_ylabel(panel.y_label, color=INK, fontsize=11)
    axes.tick_params(colors=INK, labelsize=10, length=0)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    if panel.equal:
        axes.set_aspect("equal")


def _label_decades(axis: Any) -> None:
    """Plain numbers where they are short, powers of ten elsewhere; in between the decades only if there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    narrow = high < 40 * low

    def name(value: float, position: int | None = None) -> str:
        power = round(math.log10(value))
        return f"{value:g}" if narrow or -3 <= power <= 3 else f"$10^{{{power}}}$"

    axis.set_major_formatter(FuncFormatter(name))
    axis.set_minor_formatter(FuncFormatter(name) if narrow else NullFormatter())
    if narrow:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))


def _label_roots(axes: Any) -> None:
    """From zero on, round numbers that the spacing keeps apart."""
    right = axes.get_xlim()[1]
    axes.set_xlim(0.0, right)
    ticks = [0.0]
    for tick in sorted(step * 10.0**power for power in range(-6, 7) for step in (1, 2, 3, 5)):
        if tick <= right and math.sqrt(tick) - math.sqrt(ticks[-1]) > math.sqrt(right) / 9:
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _root(x: Any) -> Any:
    return abs(x) ** 0.5


def _square(x: Any) -> Any:
    return x**2


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _draw_curve(axes: Any, curve: Curve, index: int) -> None:
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
    looks: dict[str, dict[str, Any]] = {
        "line": {"linestyle": "-", "linewidth": 1.9},
        "dashed": {"linestyle": (0, (4, 3)), "linewidth": 1.6},
        "points": {"linestyle": "none", "marker": marker, "markersize": 8.5, "markeredgecolor": "white"},
        "line+points": {"linestyle": "-", "linewidth": 1.6, "marker": marker, "markersize": 6},
    }
    look = {"color": color, "label": curve.label or None, "zorder": 3, **looks[curve.style]}
    if curve.error is not None:
        axes.errorbar(curve.x, _numbers(curve.y), yerr=_numbers(curve.error), elinewidth=1.3, capsize=2.5, **look)
    else:
        axes.plot(curve.x, _numbers(curve.y), **look)


def _draw_bars(axes: Any, curve: Curve, index: int, count: int, place: int) -> None:
    width = 0.8 / count
    middle = [x + (place - (count - 1) / 2) * width for x in curve.x]
    error = None if curve.error is None else _numbers(curve.error)
    axes.bar(
        middle,
        _numbers(curve.y),
        width=0.94 * width,
        color=COLORS[index % len(COLORS)],
        label=curve.label or None,
        yerr=error,
        error_kw={"elinewidth": 1.3, "capsize": 2.5, "ecolor": INK},
        zorder=2,
    )


def _legend(axes: Any, panel: Panel) -> None:
    labels = [curve.label for curve in panel.curves if curve.label]
    if panel.legend == "none" or not labels:
        return
    look: dict[str, Any] = {"frameon": False, "fontsize": 10, "labelcolor": INK}
    if panel.legend == "inside":
        axes.legend(loc="best", **look)
    elif panel.legend == "right":
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), **look)
    else:
        lines = max((tick.count("\n") for tick in panel.ticks), default=0)
        look |= {"bbox_transform": _lowered(axes, 34 + 13 * lines), "borderaxespad": 0}
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 0.0), ncols=_legend_columns(labels), **look)


def _lowered(axes: Any, points: float) -> Any:
    """The axes' coordinates, so many points lower: room for ticks and label, however high the axes are."""
    from matplotlib.transforms import ScaledTranslation

    return axes.transAxes + ScaledTranslation(0, -points / 72, axes.figure.dpi_scale_trans)


def _legend_columns(labels: Sequence[str]) -> int:
    return 1 if max(map(len, labels)) > 34 else min(len(labels), 2)


def _legend_lines(panel: Panel) -> int:
    labels = [curve.label for curve in panel.curves if curve.label]
    if panel.legend != "below" or not labels:
        return 0
    return -(-len(labels) // _legend_columns(labels))
