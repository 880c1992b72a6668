"""How fast a sequence of errors goes to zero: sublinear, linear, superlinear or quadratic, with standard errors.

Legend: ``errors`` e_0, e_1, ..., positive, one a step; logarithms are natural.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["none", "sublinear", "linear", "superlinear", "quadratic"]

_FEWEST = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """What :func:`fit_rate` found.

    Attributes:
        kind: the verdict.
        factor: q of the linear fit ``e_t = c q^t``; the mean factor a step whatever the kind.
        slope: ``log q``, the slope of ``log e_t`` against t.
        slope_error: its standard error.
        order: slope p of ``log e_{t+1} = log C + p log e_t``: 1 for linear, 2 for quadratic convergence.
        order_error: its standard error.
        constant: C of that fit.
        power: k of the power law ``e_t = c (t + 1)^-k``.
        used: number of errors that entered, those before the floor.
    """

    kind: Kind
    factor: float
    slope: float
    slope_error: float
    order: float
    order_error: float
    constant: float
    power: float
    used: int

    @property
    def is_linear(self) -> bool:
        """Whether errors shrink by one factor a step."""
        return self.kind == "linear"

    @property
    def is_quadratic(self) -> bool:
        """Whether each error is about the square of the one before: correct digits double."""
        return self.kind == "quadratic"

    def __str__(self) -> str:
        if self.kind == "none":
            return f"no convergence: log error changes by {self.slope:.3g} +- {self.slope_error:.2g} a step"
        if self.kind == "sublinear":
            law = f"e_t ~ (t + 1)^-{self.power:.3g}"
        elif self.kind == "linear":
            law = f"e_t ~ {self.factor:.4g}^t (log factor {self.slope:.4g} +- {self.slope_error:.2g})"
        else:
            law = f"e_t+1 ~ {self.constant:.3g} e_t^{self.order:.3g} (order +- {self.order_error:.2g})"
        return f"{self.kind}: {law}, from {self.used} errors"


def fit_rate(errors: Tensor | Sequence[float], floor: float = 1e-13) -> Rate:
    """Fit linear, power-law and higher-order convergence to a sequence of errors, and say which one it is.

        linear       log e_t     = log c + t log q
        sublinear    log e_t     = log c - k log(t + 1)
        of order p   log e_{t+1} = log C + p log e_t        quadratic: p = 2

    The verdict: no convergence if the slope of ``log e_t`` is not below 0 by two standard errors. Superlinear if p
    exceeds 1 by more than three standard errors and by 0.2; quadratic if it is also within three standard errors, or
    0.2, of 2. Otherwise linear or sublinear, whichever leaves the smaller sum of squares of ``log e_t``.

    Only the errors before the first one at the floor are used: what follows is rounding or sampling noise. Standard
    errors are those of least squares, which take deviations as independent; the errors of a spiral are not, and
    theirs are only a scale.

    Args:
        errors: e_0, e_1, ... of consecutive steps, >= 0; start where the asymptotic behavior does.
        floor: errors up to here are not looked at, nor anything after the first of them. About 1e-13 suits numbers of
            size 1 in float64; give the noise level where errors are measured by sampling.

    Raises:
        ValueError: errors that are negative, not finite or not one-dimensional; fewer than four before the floor.

    >>> rate = fit_rate([0.3 * 0.5**t for t in range(20)])
    >>> rate.kind, round(rate.factor, 12), rate.used
    ('linear', 0.5, 20)
    >>> fit_rate([0.1, 0.01, 1e-4, 1e-8, 1e-16]).is_quadratic
    True
    """
    values = torch.as_tensor(errors, dtype=torch.float64).detach()
    if values.dim() != 1 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError("errors must be one sequence of finite numbers that are not negative")
    at_floor = torch.nonzero(values <= floor)
    used = int(at_floor[0]) if len(at_floor) else len(values)
    if used < _FEWEST:
        raise ValueError(
            f"a rate needs at least {_FEWEST} errors before the floor {floor:g}, got {used} of {len(values)}; "
            "record more steps, start farther away or lower the floor"
        )
    logs = values[:used].log()
    steps = torch.arange(used, dtype=torch.float64)
    linear = _line(steps, logs)
    power = _line((steps + 1).log(), logs)
    order = _line(logs[:-1], logs[1:])
    return Rate(
        kind=_verdict(linear, power, order),
        factor=math.exp(linear.slope),
        slope=linear.slope,
        slope_error=linear.error,
        order=order.slope,
        order_error=order.error,
        constant=math.exp(min(order.intercept, 700.0)),
        power=-power.slope,
        used=used,
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """A least-squares line: its slope, the slope's standard error, intercept and sum of squared residuals."""

    slope: float
    error: float
    intercept: float
    squares: float


def _line(x: Tensor, y: Tensor) -> _Line:
    centered = x - x.mean()
    spread = centered.square().sum()
    if not spread > 0:
        return _Line(0.0, math.inf, y.mean().item(), (y - y.mean()).square().sum().item())
    slope = (centered * y).sum() / spread
    residuals = y - y.mean() - slope * centered
    squares = residuals.square().sum()
    error = (squares / (max(1, len(x) - 2) * spread)).sqrt()
    return _Line(slope.item(), error.item(), (y.mean() - slope * x.mean()).item(), squares.item())


def _verdict(linear: _Line, power: _Line, order: _Line) -> Kind:
    # Rounding leaves a slope of about 1e-17 in errors that do not move.
    if not linear.slope < -max(2 * linear.error, 1e-12):
        return "none"
    if order.slope - 1 > max(3 * order.error, 0.2):
        return "quadratic" if abs(order.slope - 2) <= max(3 * order.error, 0.2) else "superlinear"
    return "linear" if linear.squares <= power.squares else "sublinear"
