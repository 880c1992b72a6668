"""Methods as data: a mixture of routes, an objective with addends, a reference rule.

>>> from setsail import methods
>>> methods.get("sail-ddp").routes[0].weight
0.4
"""

from setsail.methods.catalogue import CATALOGUE, get, names
from setsail.methods.comparing import Comparison, compare, comparison_law
from setsail.methods.loss import RouteLoss, route_loss
from setsail.methods.parts import (
    Addend,
    Route,
    Source,
    forward_kl,
    on_policy,
    on_policy_self_labeled,
    self_labeled_dataset,
)
from setsail.methods.spec import Method

__all__ = [
    "CATALOGUE",
    "Addend",
    "Comparison",
    "Method",
    "Route",
    "RouteLoss",
    "Source",
    "compare",
    "comparison_law",
    "forward_kl",
    "get",
    "names",
    "on_policy",
    "on_policy_self_labeled",
    "route_loss",
    "self_labeled_dataset",
]
