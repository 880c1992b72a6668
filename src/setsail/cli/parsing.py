"""Argument parsing shared by the verbs: unknown flags are refused with the nearest known name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich_argparse import RichHelpFormatter

from setsail.core import ConfigError, nearest


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are :class:`ConfigError` and that never guesses abbreviations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": RichHelpFormatter, "allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage and exiting with status 2."""
        raise ConfigError(f"{message} (`{self.prog} --help` lists the options)")


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse all of ``arguments``."""
    namespace, unknown = parser.parse_known_args(list(arguments))
    refuse_unknown(parser, unknown)
    return namespace


def refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    """Refuse what the parser did not recognize.

    Raises:
        ConfigError: names the first unknown flag and the nearest known one.
    """
    if not unknown:
        return
    flags = [option for action in parser._actions for option in action.option_strings]
    first = unknown[0].split("=", 1)[0]
    if not first.startswith("-"):
        raise ConfigError(f"unexpected argument {first!r} (`{parser.prog} --help` lists the options)")
    raise ConfigError(f"unknown flag {first}{nearest(first, flags)} (`{parser.prog} --help` lists the options)")


def read_config(path: str, known: Iterable[str]) -> Mapping[str, Any]:
    """A YAML file of options.

    Raises:
        ConfigError: it cannot be read, is not a mapping, or has a key that is no option (the nearest is named).
    """
    import yaml

    known = list(known)
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path!r} cannot be read: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"config file {path!r} must hold `option: value` lines, it holds {type(given).__name__}")
    for key in given:
        if key not in known:
            raise ConfigError(f"config file {path!r} has an unknown key {key!r}{nearest(str(key), known)}")
    return given


def parse_columns(given: str | Mapping[str, str] | None) -> dict[str, str] | None:
    """``prompt=question,chosen=good`` as a mapping.

    >>> parse_columns("prompt=question, chosen=good")
    {'prompt': 'question', 'chosen': 'good'}
    """
    if given is None or isinstance(given, Mapping):
        return dict(given) if given is not None else None
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if not parts or any("=" not in part for part in parts):
        raise ConfigError(f"columns must be given as part=column, like 'prompt=question,chosen=good'; got {given!r}")
    return {name.strip(): column.strip() for name, column in (part.split("=", 1) for part in parts)}
