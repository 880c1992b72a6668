"""One tree of errors, and the nearest known name."""

from __future__ import annotations

import pytest

from setsail import core
from setsail.core import SetsailError, nearest

ERRORS = {
    "ConfigError": ValueError,
    "SpecError": ValueError,
    "DataError": ValueError,
    "EngineError": RuntimeError,
    "LabelerError": RuntimeError,
    "TrainingError": RuntimeError,
    "CheckpointError": RuntimeError,
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_setsail_error_and_a_builtin_one(name: str) -> None:
    error = getattr(core, name)
    assert issubclass(error, SetsailError)
    assert issubclass(error, ERRORS[name])
    assert error.__doc__


def test_the_tree_holds_no_other_errors() -> None:
    def below(error: type[Exception]) -> set[str]:
        return {error.__name__}.union(*(below(child) for child in error.__subclasses__()))

    ours = {error for error in below(SetsailError) if hasattr(core, error)}
    assert ours == {"SetsailError", *ERRORS}
    assert issubclass(core.SpecError, core.ConfigError)


def test_a_setsail_error_alone_is_no_value_error() -> None:
    assert not issubclass(SetsailError, (ValueError, RuntimeError))


@pytest.mark.parametrize(
    ("given", "known", "hint"),
    [
        ("max_lenght", ["max_length", "max_steps"], "; did you mean 'max_length'?"),
        ("dpo", ["dpo"], "; did you mean 'dpo'?"),
        ("temperature", ["beta", "epochs"], ""),
        ("x", [], ""),
    ],
)
def test_nearest_names_what_was_probably_meant(given: str, known: list[str], hint: str) -> None:
    assert nearest(given, known) == hint


def test_nearest_takes_any_iterable() -> None:
    assert nearest("bta", (name for name in ("beta", "alpha"))) == "; did you mean 'beta'?"
