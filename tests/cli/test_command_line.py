"""The command as a user types it: what it prints, what it refuses, and with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from setsail import methods, world
from setsail.cli.main import VERBS, main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command writes on standard error."""
    assert main(list(arguments)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("setsail: ")
    return lines[0]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"When does boat {i} leave?", "chosen": f"It leaves at {i}.", "rejected": "No idea."}
        for i in range(16)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def train(pairs: str, output: Path, *more: str) -> list[str]:
    """A run of two steps on the embedded model."""
    return [
        "train", "--model", str(world.model_path()), "--dataset", pairs, "--output_dir", str(output),
        "--max_steps", "2", "--per_device_train_batch_size", "4", "--max_completion_length", "8",
        "--use_cpu", "true", "--logging_steps", "1",
        *more,
    ]  # fmt: skip


def test_help_names_every_verb_and_loads_no_torch() -> None:
    code = "import sys; from setsail.cli.main import main; status = main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert f"setsail {verb}" in done.stdout


def test_methods_prints_one_line_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(methods.names())


@pytest.mark.parametrize("name", methods.names())
def test_methods_describes_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", name]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    method = methods.get(name)
    assert method.paper in shown
    assert method.equation.split()[0] in shown
    for route in method.routes:
        assert f"{route.name} {route.origins} {route.preference} {route.weight:g}" in shown


def test_env_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"] == sys.version.split()[0]
    assert set(facts["versions"]) >= {"torch", "transformers", "setsail"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["methods", "sail-dp"], "unknown method 'sail-dp'; did you mean 'sail-d"),
        (["env", "--jsn"], "unknown flag --jsn; did you mean '--json'?"),
        (["train", "--model", "x", "--dataset", "y", "--betta", "1"], "unknown flag --betta; did you mean '--beta'?"),
        (["train", "--model", "x"], "no dataset is given; pass --dataset"),
        (["train"], "nothing to train"),
        (["train", "--dataset", "y"], "no model is given; pass --model"),
        (["train", "--beta", "zero"], "argument --beta: invalid"),
        (["train", "--model", "x", "--dataset", "y", "--beta", "0"], "beta must be positive, got 0.0"),
        (["train", "--model", "x", "--dataset", "y", "--method", "sail_ddp"], "did you mean 'sail-ddp'?"),
        (
            ["train", "--model", "x", "--dataset", "y", "--method", "sail-mix", "--route_weights", "ddp=0.6,dpr=0.5"],
            "sum to 1.25, which leaves no offline pairs",
        ),
        (
            ["train", "--model", "x", "--dataset", "y", "--method", "sail-ddp", "--route_weights", "ddp=-1"],
            "weight must be a probability in [0, 1], got -1.0",
        ),
        (["train", "--model", "x", "--dataset", "y", "--columns", "prompt"], "columns must be given as part=column"),
        (["train", "--model", "x", "--dataset", "/no/such/file.jsonl"], "/no/such/file.jsonl"),
        (["train", "--config", "/no/such.yaml"], "config file '/no/such.yaml' cannot be read"),
        (["demo", "--steps", "0"], "--steps must be at least 1, got 0"),
        (["check-data"], "the following arguments are required: dataset"),
    ],
)
def test_what_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *arguments)


def test_an_unknown_config_key_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("methd: dpo\n")
    assert "has an unknown key 'methd'; did you mean 'method'?" in refused(capsys, "train", "--config", str(config))
    config.write_text("- dpo\n")
    assert "must hold `option: value` lines, it holds list" in refused(capsys, "train", "--config", str(config))


def test_config_file_and_flags_flags_win(pairs: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {world.model_path()}\ndataset: {pairs}\nmethod: sail-dpr\nbeta: 0.5\nmax_steps: 2\n"
        "learning_rate: 1e-4\n"
        "labeler: [score.py:shortest]\nroute_weights: {dpr: 0.5}\nper_device_train_batch_size: 4\nuse_cpu: true\n"
        "max_completion_length: 8\n"
    )
    (tmp_path / "score.py").write_text(
        "def shortest(completions, **rest):\n    return [-float(len(c)) for c in completions]\n"
    )
    assert main(["train", "--config", str(config), "--output_dir", str(output), "--beta", "0.2"]) == 0
    run = json.loads((output / "run.json").read_text())
    assert (run["status"], run["method"], run["objective"]["beta"]) == ("finished", "sail-dpr", 0.2)
    assert run["routes"] == {"offline": 0.5, "dpr": 0.5}
    assert set(run["modified"]) == {"parameters", "routes"}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"} <= {
        p.name for p in output.iterdir()
    }
    # The resolved config runs again as it is.
    again = tmp_path / "again"
    assert main(["train", "--config", str(output / "config.yaml"), "--output_dir", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


def test_train_shows_its_choices_and_its_progress(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train(pairs, tmp_path / "run", "--method", "sail-dpp", "--held_out_fraction", "0.25")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("method sail-dpp", "offline 70%, dpp 30%; beta 0.1", "frozen copy of the starting policy; fixed",
                  "step 1 loss", "step 2 loss", "held out", "kl_k1"):  # fmt: skip
        assert words in shown
    assert "{'loss'" not in shown


def test_a_directory_with_another_run_is_refused_and_resumed(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert main(train(pairs, output, "--save_steps", "1")) == 0
    capsys.readouterr()
    message = refused(capsys, *train(pairs, output))
    assert "already holds a run (status: finished); pass resume_from_checkpoint to go on with it" in message
    more = train(pairs, output, "--save_steps", "1", "--resume_from_checkpoint", "true")
    more[more.index("--max_steps") + 1] = "3"
    assert main(more) == 0
    assert json.loads((output / "run.json").read_text())["step"] == 3


def test_method_that_needs_a_labeler_says_so(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, *train(pairs, tmp_path / "run", "--method", "sail-dpr"))
    assert "method sail-dpr needs a labeler" in message
    assert "or use sail-ddp or sail-dpp, which need none" in message
    assert not (tmp_path / "run").exists()


def test_lora_from_the_command_line(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert main(train(pairs, output, "--method", "sail-ddp", "--use_peft", "true", "--lora_r", "4")) == 0
    assert "the base model, adapter disabled; fixed" in " ".join(capsys.readouterr().out.split())
    assert (output / "adapter_model.safetensors").exists()
    # The adapter that was written is trained further, against a frozen copy of itself.
    further = train(pairs, tmp_path / "more", "--method", "sail-ddp")
    further[further.index("--model") + 1] = str(output)
    assert main(further) == 0
    assert "frozen copy of the starting adapter; fixed" in " ".join(capsys.readouterr().out.split())


def test_check_data(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", pairs]) == 0
    assert "16, 16 with a pair" in " ".join(capsys.readouterr().out.split())
    assert main(["check-data", pairs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 16
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty" in refused(capsys, "check-data", str(empty))


def test_model_directories_that_cannot_be_used(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    arguments = train(pairs, tmp_path / "run")
    arguments[arguments.index("--model") + 1] = str(bare)
    assert "no tokenizer can be loaded from" in refused(capsys, *arguments)
    arguments += ["--tokenizer", str(world.model_path())]
    assert "no causal language model can be loaded from" in refused(capsys, *arguments)


def test_unexpected_errors_are_one_line_and_debug_shows_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> int:
        raise ZeroDivisionError("the\nsky fell")

    monkeypatch.setattr("setsail.cli.env.run", broken)
    message = refused(capsys, "env")
    assert "unexpected ZeroDivisionError: the sky fell; run it again with --debug" in message
    with pytest.raises(ZeroDivisionError):
        main(["env", "--debug"])
