"""Reward functions by name: ``path/to/file.py:function`` and ``package.module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from setsail.core import ConfigError, nearest

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def names_function(text: str) -> bool:
    """Whether ``text`` has one of the two forms.

    >>> names_function("rewards.py:brevity"), names_function("my.rewards:brevity"), names_function("org/model")
    (True, True, False)
    """
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or bool(_DOTTED.fullmatch(place)))


def load_named(text: str, base_dir: Path) -> Any:
    """The object that ``text`` names; a file is looked up from ``base_dir``. Its code runs: the user named it.

    Raises:
        ConfigError: no such file or module, an error while it is imported (with the line it happened in), or no such
            name in it (with the nearest there is).
    """
    place, _, name = text.rpartition(":")
    module = _file_module(text, base_dir / Path(place).expanduser()) if place.endswith(".py") else _module(text, place)
    try:
        return getattr(module, name)
    except AttributeError:
        known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        hint = nearest(name, known) or f"; it defines: {', '.join(known[:8]) or 'nothing callable'}"
        raise ConfigError(f"labeler {text!r}: {place} has no {name!r}{hint}") from None


def _file_module(text: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"labeler {text!r}: there is no file {path}") from None
    # A name of its own for each file: two files of one name must not be taken for each other.
    name = f"setsail_user_{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"labeler {text!r}: {path} cannot be read as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(_import_failure(text, str(path), error)) from error
    return module


def _module(text: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        # Only the named module itself, or a parent of it: what that module imports may be missing too.
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise ConfigError(
                f"labeler {text!r}: there is no module {error.name!r} to import; install it, run from the folder that "
                "holds it, or name the file: path/to/file.py:function"
            ) from error
        raise ConfigError(_import_failure(text, place, error)) from error
    except Exception as error:
        raise ConfigError(_import_failure(text, place, error)) from error


def _import_failure(text: str, place: str, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    line = f"{frames[-1].filename}, line {frames[-1].lineno}" if len(frames) > 1 else place
    if isinstance(error, SyntaxError) and error.lineno:
        line = f"{error.filename}, line {error.lineno}"
    message = " ".join(str(error).split())
    return f"labeler {text!r}: importing {place} failed: {type(error).__name__}: {message} ({line})"
