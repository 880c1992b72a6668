"""The vocabulary of setsail: records that flow, protocols, errors, named random streams.

Standard library and numpy only: every other room may import this one.
"""

from setsail.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EngineError,
    LabelerError,
    SetsailError,
    SpecError,
    TrainingError,
    nearest,
)
from setsail.core.protocols import Engine, Labeler
from setsail.core.random import stream, uniforms
from setsail.core.records import Candidates, Completion, Group, Judgement, Message, Prompt, Row, Sampling

__all__ = [
    "Candidates",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "DataError",
    "Engine",
    "EngineError",
    "Group",
    "Judgement",
    "Labeler",
    "LabelerError",
    "Message",
    "Prompt",
    "Row",
    "Sampling",
    "SetsailError",
    "SpecError",
    "TrainingError",
    "nearest",
    "stream",
    "uniforms",
]
