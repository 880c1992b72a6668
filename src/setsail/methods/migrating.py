"""Where the names of TRL's losses, trainers and arguments lead here (trl.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from setsail.core import ConfigError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One name of TRL's.

    Attributes:
        name: as TRL writes it.
        kind: what it is there: a value of ``DPOConfig.loss_type``, a trainer, an argument.
        method: the method here; "" where there is none.
        settings: flags that give TRL's setting.
        note: what differs.
    """

    name: str
    kind: str
    method: str = ""
    settings: str = ""
    note: str = ""


@cache
def migrations() -> Mapping[str, Migration]:
    """Every name that is known, in the order of the table."""
    table = tomllib.loads(files("setsail.methods").joinpath("trl.toml").read_text(encoding="utf-8"))
    return {name: Migration(name=name, **entry) for name, entry in table.items()}


def from_trl(name: str) -> Migration:
    """What a name of TRL's is called here.

    Raises:
        ConfigError: the name is not in the table; the message names the nearest one.

    >>> from_trl("exo_pair").method
    'exo'
    """
    known = migrations()
    if name not in known:
        raise ConfigError(
            f"{name!r} is not a name of TRL's that setsail knows{nearest(name, known)}; it knows {', '.join(known)}"
        )
    return known[name]
