"""Whatever a user gives as ``labeler`` becomes a Labeler."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setsail.core import ConfigError, Labeler
from setsail.labelers.combined import Combined
from setsail.labelers.comparing import PreferenceFunction, compares
from setsail.labelers.functions import RewardFunctions
from setsail.labelers.naming import load_named, names_function

ACCEPTED = (
    "accepted are: 'path/to/file.py:function', 'package.module:function', a local directory or a hub id (owner/name) "
    "of a sequence-classification model, such a model itself, a function f(prompts, completions, **columns) -> scores "
    "or f(prompts, firsts, seconds, **columns) -> probabilities, "
    "a Labeler, or a list of those; a trainer also takes 'self', the policy under training as its own judge"
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What the parts are built with."""

    base_dir: Path
    hard: bool
    scale: float
    reward_model: dict[str, Any]


def resolve(
    labeler: Any,
    *,
    weights: Sequence[float] | None = None,
    hard: bool = False,
    scale: float = 1.0,
    base_dir: str | Path | None = None,
    tokenizer: Any = None,
    batch_size: int = 16,
    max_length: int | None = None,
    device: Any = None,
    reversed: bool = False,
) -> Labeler:
    """The labeler that ``labeler`` stands for.

    ============================================  =============================================================
    given                                         becomes
    ============================================  =============================================================
    a Labeler                                     itself
    a callable                                    :class:`RewardFunctions`
    a callable that takes firsts and seconds      :class:`PreferenceFunction`, asked in both orders
    ``"path/to/file.py:function"``                the same, of that function; the file's code runs
    ``"package.module:function"``                 the same
    a sequence-classification model               :class:`RewardModel`
    a local directory, a hub id ``owner/name``    :class:`RewardModel`, loaded safely
    a list without Labelers                       the weighted *sum of scores*, as in TRL
    a list with a Labeler among them              :class:`Combined`: the weighted *average of P*
    ============================================  =============================================================

    Args:
        labeler: any of these.
        weights: one a member of the list.
        hard: the better completion wins with certainty (argmax) instead of with P = sigmoid(gap / scale).
        scale: score gap that counts as one nat of log-odds.
        base_dir: where relative paths start (default: the current directory).
        tokenizer, ...: for reward models, see :class:`RewardModel`.

    Raises:
        ConfigError: none of the above, or ``hard`` or ``scale`` for a Labeler that is built already.

    >>> resolve(lambda completions: [len(text) for text in completions], hard=True).name
    '<lambda>'
    """
    given = list(labeler) if isinstance(labeler, list | tuple) else [labeler]
    loading = {"tokenizer": tokenizer, "batch_size": batch_size, "max_length": max_length, "device": device}
    start = Path.cwd() if base_dir is None else Path(base_dir)
    options = _Options(base_dir=start, hard=hard, scale=scale, reward_model={**loading, "reversed": reversed})
    if not given:
        raise ConfigError(f"the list of labelers is empty; {ACCEPTED}")
    parts = [_named(part, options.base_dir) for part in given]
    if len(parts) == 1 and (weights is None or tuple(weights) == (1,)):
        return _single(parts[0], options)
    return _several(parts, weights, options)


def _named(part: Any, base_dir: Path) -> Any:
    """``part``, or what it names if it is the name of a function."""
    if not isinstance(part, str) or not names_function(part):
        return part
    found = load_named(part, base_dir)
    if isinstance(found, type) or not (callable(found) or isinstance(found, Labeler)):
        what = f"the class {found.__name__}; name an instance of it" if isinstance(found, type) else f"{found!r}"
        raise ConfigError(f"labeler {part!r} is {what}; a function or a Labeler is wanted")
    return found


def _is_model(part: Any) -> bool:
    # Without torch loaded there can be no model, and a function alone should not load it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(part, torch.nn.Module)


def _is_built(part: Any) -> bool:
    return isinstance(part, Labeler) and not isinstance(part, type)


def _is_function(part: Any) -> bool:
    return callable(part) and not isinstance(part, type) and not _is_model(part)


def _single(part: Any, options: _Options) -> Labeler:
    if _is_built(part):
        if options.hard or options.scale != 1.0:
            raise ConfigError(
                f"labeler {part.name!r} is built already, so hard={options.hard} and scale={options.scale} cannot "
                "reach it: give them where it is made"
            )
        built: Labeler = part
        return built
    if compares(part):
        if options.scale != 1.0:
            raise ConfigError(
                f"scale={options.scale}: it divides score gaps, and a function that compares gives probabilities; "
                "leave it out"
            )
        return PreferenceFunction(part, hard=options.hard)
    if _is_function(part):
        return RewardFunctions(part, hard=options.hard, scale=options.scale)
    return _reward_model(part, options)


def _several(parts: list[Any], weights: Sequence[float] | None, options: _Options) -> Labeler:
    hard, scale = options.hard, options.scale
    if any(_is_built(part) or compares(part) for part in parts):
        soft = _Options(base_dir=options.base_dir, hard=False, scale=scale, reward_model=options.reward_model)
        return Combined([part if _is_built(part) else _single(part, soft) for part in parts], weights, hard=hard)
    if all(_is_function(part) for part in parts):
        return RewardFunctions(parts, weights, hard=hard, scale=scale)
    plain = _Options(base_dir=options.base_dir, hard=False, scale=1.0, reward_model=options.reward_model)
    members = [_single(part, plain) for part in parts]
    return Combined(members, weights, over="scores", hard=hard, scale=scale)


def _reward_model(part: Any, options: _Options) -> Labeler:
    build = _builder(options)
    if isinstance(part, Path) or (isinstance(part, str) and (options.base_dir / Path(part).expanduser()).is_dir()):
        directory = options.base_dir / Path(part).expanduser()
        if not directory.is_dir():
            raise ConfigError(f"labeler {str(part)!r}: there is no directory {directory}")
        return build(directory)
    if isinstance(part, str) and _HUB_ID.fullmatch(part) and not part.endswith(".py"):
        return build(part)
    if _is_model(part):
        return build(part)
    if isinstance(part, str) and part.endswith(".py"):
        raise ConfigError(f"labeler {part!r} names a file but no function in it: write '{part}:function'")
    given = f"the class {part.__name__}; make an instance of it" if isinstance(part, type) else repr(part)
    raise ConfigError(f"labeler {given}: it is none of the things that label; {ACCEPTED}")


def _builder(options: _Options) -> Callable[[Any], Labeler]:
    # Here, because it loads torch, which functions alone do not need.
    from setsail.labelers.reward_model import RewardModel

    return lambda model: RewardModel(model, hard=options.hard, scale=options.scale, **options.reward_model)
