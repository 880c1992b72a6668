"""Every command line on a page is one that the command understands."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from pages import Command, blocks, commands, name, pages, text
from rendered import DOCS

from setsail import methods
from setsail.cli import train
from setsail.cli.main import VERBS
from setsail.core import ConfigError

COMMANDS = list(dict.fromkeys(command for page in pages() for command in commands(page)))


class Understood(Exception):
    """The arguments parse; nothing is run."""


def understand(words: Sequence[str], folder: Path) -> None:
    """Parse a command line without running it.

    Raises:
        ConfigError: there is no such verb, flag or value.
    """
    verb, rest = words[0], list(words[1:])
    if verb == "--version":
        return
    if verb not in VERBS:
        raise ConfigError(f"no verb {verb}")
    if not rest:
        return
    module = importlib.import_module(VERBS[verb][0])
    if "--help" in rest or "--help-all" in rest:
        rest = [word for word in rest if word not in ("--help", "--help-all")]
    if verb == "train":
        _train(rest, folder)
        return
    parse = module.parse

    def only_parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> NoReturn:
        given = parse(parser, arguments)
        if verb == "methods" and given.name not in (None, "NAME"):
            methods.get(given.name)
        raise Understood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "parse", only_parse)
        with pytest.raises(Understood):
            module.run(rest)


def _train(words: list[str], folder: Path) -> None:
    words = ["dpo" if word == "NAME" else word for word in words]
    if "--config" in words:
        # The file is the reader's own; what it may hold is checked on the YAML blocks.
        empty = folder / "config.yaml"
        empty.write_text("{}\n")
        words[words.index("--config") + 1] = str(empty)
    if "--output_dir" not in words:
        words += ["--output_dir", str(folder / "out")]
    train.read_arguments(words)


@pytest.mark.parametrize("command", COMMANDS, ids=[f"{each.page}: {each.line}" for each in COMMANDS])
def test_a_command_line_parses(command: Command, tmp_path: Path) -> None:
    understand(command.words, tmp_path)


def test_command_lines_are_found() -> None:
    assert {command.words[0] for command in COMMANDS} == set(VERBS)
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    "wrong",
    ["setsail fly", "setsail train --modle x", "setsail methods nope", "setsail demo --step 3", "setsail env --yaml"],
)
def test_the_check_notices_what_is_wrong(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        understand(Command("", wrong).words, tmp_path)


def _flags() -> set[str]:
    known = {option for action in train._parser(everything=True)._actions for option in action.option_strings}
    for verb in ("demo", "check-data"):
        parser = importlib.import_module(VERBS[verb][0])._parser()
        known |= {option for action in parser._actions for option in action.option_strings}
    return known | {"--debug", "--version", "--json"}


def test_flags_that_pages_name_exist() -> None:
    known = _flags()
    for page in pages():
        prose = re.sub(r"^\s*(?:make|pip|ruff|pytest|git|python) .*$", "", text(page), flags=re.MULTILINE)
        for flag in re.findall(r"`(--[\w-]+)", prose):
            assert flag in known, f"{name(page)} names {flag}, which no verb has"


def test_keys_of_yaml_blocks_are_options() -> None:
    import yaml

    known = {action.dest for action in train._parser(everything=True)._actions}
    for page in (path for path in pages() if path.is_relative_to(DOCS)):
        for block in blocks(page, "yaml"):
            assert set(yaml.safe_load(block)) <= known, f"{name(page)}: {block}"
