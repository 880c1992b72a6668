"""A room imports only from rooms below it; what does I/O or holds a model never imports its neighbor."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from house import HOUSE, RANKS, ROOT, Import, all_imports, imports, room, upward

STANDARD = frozenset(sys.stdlib_module_names)
ALLOWED = {
    "core": STANDARD | {"numpy"},
    "objectives": STANDARD | {"numpy", "torch"},
    "pairing": STANDARD | {"numpy"},
    "reference": STANDARD | {"numpy"},
    "methods": STANDARD | {"numpy", "torch"},
}


def _report(faults: list[str]) -> str:
    return "\n" + "\n".join(sorted(set(faults)))


def test_every_room_has_a_rank() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= set(RANKS), f"give these rooms a rank in tests/architecture/house.py: {sorted(rooms - set(RANKS))}"


def test_imports_go_down() -> None:
    faults = [fault for found in all_imports() if (fault := upward(found))]
    assert not faults, _report(faults)


@pytest.mark.parametrize("name", ALLOWED)
def test_the_pure_rooms_import_no_other_library(name: str) -> None:
    faults = [
        f"{found.file}:{found.line} imports {found.module}; {name}/ may import only the standard library and "
        f"{', '.join(sorted(ALLOWED[name] - STANDARD))}"
        for found in all_imports()
        if room(found.file) == name and found.package not in ALLOWED[name] | {"setsail"}
    ]
    assert not faults, _report(faults)


@pytest.mark.parametrize("name", ["core", "objectives"])
def test_the_foundation_imports_only_itself(name: str) -> None:
    faults = [
        f"{found.file}:{found.line} imports {found.module}; {name}/ stands on nothing else of setsail"
        for found in all_imports()
        if room(found.file) == name and found.package == "setsail" and not found.module.startswith(f"setsail.{name}.")
    ]
    assert not faults, _report(faults)


@pytest.mark.parametrize("statement", ["import setsail", "import setsail; dir(setsail)", "import setsail.core"])
def test_importing_setsail_loads_no_torch(statement: str) -> None:
    script = f"{statement}; import sys; print(sorted({{'torch', 'transformers', 'datasets'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# The checker itself.


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        (
            "objectives/pairwise.py",
            "from setsail.training.step import X",
            "objectives/pairwise.py [1] imports training/step",
        ),
        ("objectives/pairwise.py", "def f():\n    import setsail.lab.exact", "imports lab/exact [4] on line 2"),
        ("engines/a.py", "if TYPE_CHECKING:\n    from setsail.labelers import B", "imports labelers/B [4]"),
        ("core/a.py", "from ..methods import get", "core/a.py [0] imports methods/get [2]"),
        ("data/a.py", "from setsail import training", "imports training [5]"),
        ("data/a.py", "import_module('setsail.cli')", "imports cli [7]"),
        ("data/a.py", "from setsail import __version__", "imports __version__ [8]"),
        ("lab/exact.py", "from setsail.objectives import dpo", None),
        ("lab/exact.py", "from . import pairs", None),
        ("training/a.py", "from ..engines import b", None),
        ("__main__.py", "from setsail.cli import main", None),
        ("core/a.py", "import json", None),
    ],
)
def test_the_checker_sees_every_kind_of_import(file: str, source: str, fault: str | None) -> None:
    found = [sentence for each in imports(file, ast.parse(source)) if (sentence := upward(each))]
    assert len(found) == (fault is not None)
    if fault:
        assert fault in found[0]
        assert "move the shared type to core/" in found[0]


def test_the_house_is_walked() -> None:
    seen = all_imports()
    assert {room(found.file) for found in seen} >= {"core", "objectives", "methods", "lab", ROOT}
    assert Import("methods/parts.py", _line(seen), "setsail.pairing.rule") in seen


def _line(seen: list[Import]) -> int:
    return next(found.line for found in seen if found.module == "setsail.pairing.rule")
