"""What some objectives ask for beside log-probs and values; training works it out, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Fact = Literal["sampling", "batch-mean", "group-mean", "mismatched", "midpoint"]

FACTS: Mapping[Fact, str] = MappingProxyType(
    {
        "sampling": "log-probs of the completions when they were drawn",
        "batch-mean": "mean value over the other rows of the global batch",
        "group-mean": "mean value of the group",
        "mismatched": "mean log-ratio of completions behind the wrong prompts of the global batch, at least 0",
        "midpoint": "running midpoint of the implicit rewards of desirable and undesirable completions",
    }
)
"""What training works out for an objective, step by step."""
