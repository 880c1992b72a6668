"""Files, functions and classes of a size that can be read; one subject each; no drawers; documented public names."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from house import HOUSE, RANKS, ROOT, files, room, tree

from setsail.methods import names

FILE_LINES, FUNCTION_LINES, CLASS_LINES, CLASS_METHODS = 400, 60, 250, 20
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "tools"}
DOCUMENTED = ("core", "objectives", "pairing", "reference", "methods", "lab")
ROOMS = sorted(name for name in RANKS if name != ROOT and (HOUSE / name / "__init__.py").exists())


def _relative(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def _report(faults: list[str]) -> str:
    return "\n" + "\n".join(sorted(faults))


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _long_functions(name: str, parsed: ast.Module) -> list[str]:
    return [
        f"{name}:{node.lineno} {node.name} has {_lines(node)} lines (at most {FUNCTION_LINES}); split it by subject"
        for node in ast.walk(parsed)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > FUNCTION_LINES
    ]


def _big_classes(name: str, parsed: ast.Module) -> list[str]:
    faults = []
    for node in ast.walk(parsed):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)
        if _lines(node) > CLASS_LINES or methods > CLASS_METHODS:
            faults.append(
                f"{name}:{node.lineno} {node.name} has {_lines(node)} lines and {methods} methods "
                f"(at most {CLASS_LINES} and {CLASS_METHODS}); move a subject out of it"
            )
    return faults


def test_files_are_short() -> None:
    faults = [
        f"{_relative(path)} has {count} lines (at most {FILE_LINES}); give its second subject a file"
        for path in files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    ]
    assert not faults, _report(faults)


def test_functions_are_short() -> None:
    faults = [fault for path in files() for fault in _long_functions(_relative(path), tree(path))]
    assert not faults, _report(faults)


def test_classes_are_small() -> None:
    faults = [fault for path in files() for fault in _big_classes(_relative(path), tree(path))]
    assert not faults, _report(faults)


def test_nothing_is_a_drawer() -> None:
    faults = [
        f"{_relative(path)}: name it after what it holds"
        for path in files()
        if DRAWERS & {part.strip("_") for part in path.relative_to(HOUSE).with_suffix("").parts}
    ]
    assert not faults, _report(faults)


def _defaults(node: ast.AST) -> list[ast.AST]:
    """The literals that a statement may hold: an argument's or a field's default, the names that a module exports."""
    if isinstance(node, ast.arguments):
        return [value for value in (*node.defaults, *node.kw_defaults) if value is not None]
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
        return [node.value]
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
        return [keyword.value for keyword in node.value.keywords if keyword.arg == "default"]
    if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
        return list(ast.walk(node.value))
    return []


def _method_names(parsed: ast.Module) -> list[ast.Constant]:
    """String literals that are the name of a method, except where they are a default or an exported function."""
    exempt = {id(default) for node in ast.walk(parsed) for default in _defaults(node)}
    return [
        node
        for node in ast.walk(parsed)
        if isinstance(node, ast.Constant) and node.value in names() and id(node) not in exempt
    ]


def test_nothing_outside_methods_asks_for_a_methods_name() -> None:
    faults = [
        f"{_relative(path)}:{node.lineno} says {node.value!r}; ask the method what it needs (draws, "
        "needs_labeler, ...) or add a field to its spec"
        for path in files()
        if room(_relative(path)) not in ("methods", "demo") and not _relative(path).startswith("lab/studies/")
        for node in _method_names(tree(path))
    ]
    assert not faults, _report(faults)


@pytest.mark.parametrize("name", ROOMS)
def test_public_names_exist(name: str) -> None:
    module = importlib.import_module(f"setsail.{name}")
    exported = list(getattr(module, "__all__", ()))
    missing = [each for each in exported if not hasattr(module, each)]
    assert not missing, f"setsail.{name}.__all__ promises {missing}"
    assert len(set(exported)) == len(exported)


def test_public_names_of_the_package_exist() -> None:
    setsail = importlib.import_module("setsail")
    missing = [each for each in setsail.__all__ if not hasattr(setsail, each)]
    assert not missing, f"setsail.__all__ promises {missing}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_functions_and_classes_are_documented(name: str) -> None:
    module = importlib.import_module(f"setsail.{name}")
    assert module.__doc__
    faults = []
    for each in module.__all__:
        thing = getattr(module, each)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        members = [
            member
            for label, member in vars(thing).items()
            if inspect.isclass(thing) and not label.startswith("_") and inspect.isfunction(member)
        ]
        faults += [f"{part.__qualname__} has no docstring" for part in (thing, *members) if not part.__doc__]
    assert not faults, _report(faults)


@pytest.mark.parametrize("name", ["objectives", "pairing", "reference", "methods", "lab"])
def test_these_rooms_list_what_they_offer(name: str) -> None:
    assert importlib.import_module(f"setsail.{name}").__all__


# The checkers themselves.


def test_the_size_checks_notice() -> None:
    long = ast.parse("def f():\n" + "    x = 1\n" * FUNCTION_LINES)
    assert "f has 61 lines" in _long_functions("a.py", long)[0]
    assert not _long_functions("a.py", ast.parse("def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)))
    many = ast.parse("class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(21)))
    assert "21 methods" in _big_classes("a.py", many)[0]


@pytest.mark.parametrize(
    "allowed",
    [
        "method: str = 'sail-ddp'",
        "method: str = field(default='sail-ddp')",
        "def f(method='dpo', *, name='ipo'): ...",
        "__all__ = ['dpo']",
    ],
)
def test_the_name_check_passes_defaults_and_exports(allowed: str) -> None:
    assert not _method_names(ast.parse(allowed))


def test_the_name_check_notices_branches_and_tables() -> None:
    branch = ast.parse("if method.name == 'sail-dpp' or name in ('dpo',): ...")
    assert sorted(node.value for node in _method_names(branch)) == ["dpo", "sail-dpp"]
    table = ast.parse("COSTS: dict[str, int] = {'online-dpo': 3}")
    assert [node.value for node in _method_names(table)] == ["online-dpo"]
