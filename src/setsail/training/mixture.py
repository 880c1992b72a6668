"""Which route a row takes."""

from __future__ import annotations

from setsail.core import stream
from setsail.methods import Method, Route


def draw_route(method: Method, seed: int, row_id: int, epoch: int) -> Route | None:
    """The route of one visit to one row; None = it is trained as an offline pair.

    A categorical draw with the routes' weights, from a stream named by row and epoch: it depends on nothing else.
    """
    active = method.active_routes
    if not active:
        return None
    uniform = float(stream(seed, "route", row_id, epoch).random())
    passed = 0.0
    for route in active:
        passed += route.weight
        if uniform < passed:
            return route
    # Without an offline part the weights sum to 1 up to rounding: the last route takes what rounding leaves.
    return None if method.offline else active[-1]
