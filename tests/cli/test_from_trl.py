"""``setsail methods --from-trl``: every name of TRL's leads to a method whose flags the command takes."""

from __future__ import annotations

import dataclasses
import re

import pytest

from setsail import methods
from setsail.cli.main import main
from setsail.cli.train import read_arguments
from setsail.core import ConfigError
from setsail.methods.migrating import from_trl, migrations

NAMES = list(migrations())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_leads_to_a_method_or_says_why_not(name: str) -> None:
    migration = from_trl(name)
    assert migration.kind
    if not migration.method:
        assert len(migration.note) > 20
        assert not migration.settings
        return
    assert migration.method in methods.names()


@pytest.mark.parametrize("name", [name for name in NAMES if migrations()[name].method])
def test_the_flags_parse_and_fit_the_method(name: str) -> None:
    """As the command reads them; a setting that the method does not have would be refused."""
    migration = migrations()[name]
    given = ["--method", migration.method, *migration.settings.split(), "--output_dir", "nowhere", "--use_cpu", "true"]
    _, config, _ = read_arguments(given)
    method = config.resolved_method()
    assert method.name == migration.method
    for flag, value in re.findall(r"--(beta|label_smoothing) (\S+)", migration.settings):
        assert method.parameters[flag] == float(value)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_prints_method_flags_and_note(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    migration = migrations()[name]
    assert main(["methods", "--from-trl", name]) == 0
    out = capsys.readouterr().out
    head, *lines = out.splitlines()
    assert head == f"{name}  {migration.kind} of TRL"
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["method"] == (migration.method or "none")
    assert shown.get("flags", "") == (
        f"--method {migration.method} {migration.settings}".strip() * bool(migration.method)
    )
    assert shown.get("note", "") == migration.note


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--from-trl", "exo_pairs"],
            "'exo_pairs' is not a name of TRL's that setsail knows; did you mean 'exo_pair'?",
        ),
        (["--from-trl", "KTOTrainr"], "did you mean 'KTOTrainer'?"),
        (["--from-trl"], "expected one argument"),
        (["dpo", "--from-trl", "sigmoid"], "not allowed with argument"),
        (["--from-tlr", "sigmoid"], "unknown flag --from-tlr; did you mean '--from-trl'?"),
    ],
)
def test_what_is_no_name_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_an_unknown_name_lists_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="it knows sigmoid, sigmoid_norm, hinge, ipo"):
        from_trl("nothing like it")


def _listed(config: type) -> set[str]:
    """The names that a config's help of ``loss_type`` lists."""
    [field] = [each for each in dataclasses.fields(config) if each.name == "loss_type"]
    return set(re.findall(r"[`'\"]+([a-z]+(?:_[a-z]+)*)[`'\"]+", field.metadata["help"])) - {"loss_weights"}


def test_every_loss_type_of_the_installed_trl_has_an_entry() -> None:
    trl = pytest.importorskip("trl")
    losses = _listed(trl.DPOConfig)
    assert {"sigmoid", "hinge", "sigmoid_norm"} <= losses
    known = {name for name, each in migrations().items() if each.kind == "DPOConfig.loss_type"}
    assert losses <= known


def test_every_trainer_of_the_installed_trl_that_learns_from_preferences_has_an_entry() -> None:
    trl = pytest.importorskip("trl")
    others = {"SFTTrainer", "RewardTrainer", "DistillationTrainer", "DPOTrainer"}
    trainers = {name for name in dir(trl) if name.endswith("Trainer")} - others
    assert {"GRPOTrainer", "KTOTrainer", "RLOOTrainer"} <= trainers
    assert trainers <= set(NAMES)
