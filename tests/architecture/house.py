"""The house's plan: which room stands on which, and what a file imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import setsail

HOUSE = Path(setsail.__file__).resolve().parent
ROOT = "the package root"
RANKS = {
    "core": 0,
    "objectives": 1,
    "pairing": 1,
    "reference": 1,
    "methods": 2,
    "policies": 3,
    "engines": 4,
    "labelers": 4,
    "data": 4,
    "evaluation": 4,
    "world": 4,
    "lab": 4,
    "training": 5,
    "demo": 6,
    "cli": 7,
    ROOT: 8,
}


@dataclass(frozen=True)
class Import:
    """One import statement: the file it stands in (relative to the house), its line, and the module it names."""

    file: str
    line: int
    module: str

    @property
    def package(self) -> str:
        """The first part of the module's name."""
        return self.module.split(".")[0]


def files() -> list[Path]:
    """Every module of the house."""
    return sorted(path for path in HOUSE.rglob("*.py"))


def room(file: str) -> str:
    """The room that a file (relative to the house) stands in."""
    parts = Path(file).parts
    return parts[0] if len(parts) > 1 else ROOT


def room_of_module(module: str) -> str:
    """The room that ``setsail.x.y`` names; names at the root that are no room belong to the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANKS else ROOT


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(file: str, parsed: ast.Module) -> Iterator[Import]:
    """Every import of a file: top level, in a function, under TYPE_CHECKING, by ``import_module``."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(file, node)
            yield from (Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(file, node.lineno, name.value)


def _absolute(file: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    here = ("setsail", *Path(file).parts[:-1])
    above = here[: len(here) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def all_imports() -> list[Import]:
    """Every import of every module of the house."""
    return [found for path in files() for found in imports(str(path.relative_to(HOUSE)), tree(path))]


def upward(found: Import) -> str | None:
    """What is wrong with an import, as a sentence; None where it goes down or stays in its room."""
    if found.package != "setsail":
        return None
    here, there = room(found.file), room_of_module(found.module)
    if here == there or RANKS.get(there, 99) < RANKS.get(here, -1):
        return None
    target = found.module.removeprefix("setsail").lstrip(".").replace(".", "/") or "__init__"
    return (
        f"{found.file} [{RANKS.get(here, '?')}] imports {target} [{RANKS.get(there, '?')}] on line {found.line}; "
        "move the shared type to core/, or join the two rooms in training/"
    )
