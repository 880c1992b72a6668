"""Every error setsail raises on purpose.

    SetsailError
    |-- ConfigError       an option, a flag or a config key that cannot be used
    |   `-- SpecError     a method whose parts do not make sense together
    |-- DataError         a data set that cannot be read, or holds nothing to train on
    |-- EngineError       completions could not be drawn
    |-- LabelerError      too many preferences are missing
    |-- TrainingError     a run that must stop: an alarm set to stop, a non-finite loss
    `-- CheckpointError   a checkpoint that cannot be written or read

A message says what was given, why it cannot work and what to do instead. The command line prints
it as one readable line and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SetsailError(Exception):
    """Base of every error that setsail raises on purpose."""


class ConfigError(SetsailError, ValueError):
    """An option, a flag or a config key cannot be used as given."""


class SpecError(ConfigError):
    """The parts of a method do not make sense together."""


class DataError(SetsailError, ValueError):
    """A data set cannot be read or holds nothing that can be trained on."""


class EngineError(SetsailError, RuntimeError):
    """Completions could not be drawn."""


class LabelerError(SetsailError, RuntimeError):
    """Too many preferences are missing for the run to go on honestly."""


class TrainingError(SetsailError, RuntimeError):
    """The run must stop: an alarm was set to stop it, or its numbers are no longer finite."""


class CheckpointError(SetsailError, RuntimeError):
    """A checkpoint could not be written or cannot be read."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, or an empty string.

    >>> nearest("sail_ddp", ["dpo", "sail-ddp", "sail-dpp"])
    "; did you mean 'sail-ddp'?"
    >>> nearest("zzz", ["dpo"])
    ''
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
