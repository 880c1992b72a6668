"""setsail: online preference alignment of language models.

    from setsail import SailConfig, SailTrainer

Importing this package is quick and loads no torch: every public name is resolved when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setsail.training.config import SailConfig as SailConfig
    from setsail.training.trainer import SailTrainer as SailTrainer

__version__ = "0.1.0"

_HOMES = {
    "SailConfig": "setsail.training.config",
    "SailTrainer": "setsail.training.trainer",
    "SetsailError": "setsail.core.errors",
}
_MODULES = (
    "core", "data", "engines", "evaluation", "labelers", "lab", "methods", "objectives",
    "pairing", "policies", "reference", "training", "world",
)  # fmt: skip

__all__ = ["SailConfig", "SailTrainer", "SetsailError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"setsail.{name}")
    raise AttributeError(f"module 'setsail' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
