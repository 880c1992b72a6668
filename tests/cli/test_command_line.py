"""The command as a user types it: what it prints, what it refuses, and with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from setsail import methods, world
from setsail.cli import wording
from setsail.cli.main import VERBS, main
from setsail.cli.methods import symbols


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


def listed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the list of methods, header and footer left out."""
    assert main(["methods"]) == 0
    header, *lines, empty, footer = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "method"
    assert not empty
    assert "setsail methods NAME" in footer
    return lines


def test_methods_prints_one_line_a_method(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In 120 columns: answers and labels, objective, reference rule and source of each."""
    monkeypatch.setenv("COLUMNS", "120")
    lines = listed(capsys)
    assert [line.split()[0] for line in lines] == list(methods.names())
    assert max(map(len, lines)) <= 120
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert shown["dpo"] == "offline dpo fixed 2305.18290"
    assert shown["xpo"] == "policy + ref [labeler] dpo + optimism fixed 2405.21046"
    assert shown["spin"] == "chosen + policy [first wins] dpo every 16 2401.01335"
    assert shown["inpo"] == "8 policy [labeler] ipo every 16, anchor 0.33 2407.00617"
    assert shown["egpo"] == "3 policy [labeler] online_ipo, extragradient fixed 2503.08942"
    assert shown["lipo"] == "offline lists lipo fixed 2402.01878"
    assert shown["kto"] == "offline marks kto fixed 2402.01306"
    assert shown["dice"] == "50% offline, 50% 16 policy [implicit] dpo every 16; one behind 2406.09760"
    assert shown["sail-mix"] == "50% offline, 20% ddp, 15% dpp, 15% dpr dpo fixed 2406.15567"
    assert shown["self-rewarding"].startswith("4 policy [self]")
    for name in methods.names():
        method = methods.get(name)
        assert method.paper.removeprefix("arXiv ") in shown[name]
        assert method.objective.__name__ in shown[name]


def test_the_list_of_methods_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are left out where there is no room, and the summary stands there where there is."""
    for width in (60, 80, 100, 120, 250):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = listed(capsys)
        assert len(lines) == len(methods.names())
        assert max(map(len, lines)) <= max(width, 62)
        assert all(methods.get(line.split()[0]).summary in line for line in lines) == (width == 250)
    # Into a file or a pipe everything is written, for grep.
    monkeypatch.delenv("COLUMNS")
    assert all(methods.get(line.split()[0]).summary in line for line in listed(capsys))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", methods.names())
def test_methods_describes_each(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["methods", name]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    shown, method = " ".join(out.split()), methods.get(name)
    for words in (method.summary, *method.equation.split(), method.paper, f"--method {name}", *method.deviations):
        assert " ".join(words.split()) in shown
    assert f"{method.objective.__name__}(" in shown
    for route in method.routes:
        assert f"{route.weight:.0%} {route.name}: " in shown
    for added in method.addends:
        assert f"{added.coefficient:g} x {added.name}, mean over" in shown
    # No flag is broken over two lines, so that each can be copied.
    for flag in wording.settings(method):
        assert flag in out
    assert ("--labeler LABELER" in shown) == (method.needs_labeler and method.judge is None)


def test_what_a_methods_routes_are_in_words() -> None:
    """Sources, what is compared, what is learnt and from whom."""

    def lines(name: str) -> list[str]:
        return wording.route_lines(methods.get(name))

    assert lines("dpo") == ["100% offline: the data set's pair and preference"]
    assert lines("pro") == ["100% offline: all scored answers of the row together"]
    assert lines("bco") == ["100% offline: each answer by itself, marked good or bad"]
    assert lines("xpo") == ["100% online: 1 of the policy, 1 of the reference; label: preference, by the labeler"]
    assert lines("apl")[0].startswith(
        "100% dpr: 2 of the policy; compared: the two, in the 50% of rows with the largest |u|; label: preference"
    )
    assert lines("samplers-mix-p")[1] == (
        "50% tilted: 1 of policy^1.5 reference^-0.5, 1 of policy^0.5 reference^0.5; label: preference, by the labeler"
    )
    assert lines("selm")[0].startswith(
        "100% online: 1 of the reference (greedy), the row's chosen, the row's rejected; compared: best and worst; "
    )
    assert lines("sppo")[0].endswith("compared: best and worst; value: win rate, by the labeler")
    assert lines("egpo")[0].endswith("value: preference over the last, by the labeler")
    assert lines("sail-dpp")[1] == "30% dpp: 2 of the policy; label: the policy, inside the loss; coefficient 0.2"
    assert lines("dice")[1].endswith("label: the likelier side, for certain, by implicit reward of the last round")


def test_what_frozen_policies_do_in_words() -> None:
    said = {name: wording.reference(methods.get(name)) for name in ("dpo", "spin", "apo-accelerated", "inpo", "salsa")}
    assert said["dpo"] == "the starting policy, fixed"
    assert said["spin"] == "every 16 steps it becomes the policy"
    assert "first pushed on by 0.3 of its way" in said["apo-accelerated"]
    assert "a share of 0.333 of the starting policy" in said["inpo"]
    assert said["salsa"] == "the average of the starting policy (0.5) and a second model (0.5), fixed"
    assert wording.rule(methods.get("nash-ema").opponent) == "every step it takes over 0.001 of the policy"  # type: ignore[arg-type]
    assert wording.rule(methods.get("dice").opponent) == "what the reference was before its last move"  # type: ignore[arg-type]


def test_letters_of_an_equation_are_explained() -> None:
    assert symbols(methods.get("sppo").equation) == "h an answer's log-ratio to the reference"
    assert symbols(methods.get("xpo").equation).startswith("F = log sigmoid(u); u = beta d; d the difference")  # type: ignore[union-attr]
    assert symbols(methods.get("raft").equation) is None


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
    for words in (
        "method sail-dpp", "loss dpo(beta=0.1)", "routes 70% offline: the data set's pair and preference",
        "30% dpp: 2 of the policy; label: the policy, inside the loss; coefficient 0.2",
        "reference frozen copy of the starting policy; fixed", "labeler none", "answers up to 8 tokens, temperature 1",
        "step 1 loss", "step 2 loss", "held out", "kl_k1",
    ):  # fmt: skip
        assert words in shown
    assert "{'loss'" not in shown


def started(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a run says of itself before its first step, as one line of words."""
    few = ["--per_device_train_batch_size", "2", "--max_completion_length", "4", "--staleness_limit", "0"]
    assert main([*arguments, *few]) == 0
    return " ".join(capsys.readouterr().out.split("step     1")[0].split())


def test_a_run_shows_its_opponent_its_update_and_its_judge(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = tmp_path / "score.py"
    score.write_text("def shortest(completions, **rest):\n    return [-float(len(c)) for c in completions]\n")
    judged = ["--labeler", f"{score}:shortest"]
    shown = started(capsys, train(pairs, tmp_path / "ema", "--method", "nash-ema", *judged))
    assert "opponent frozen copy of the starting policy; every step, mixup 0.001" in shown
    assert "value: preference" not in shown
    assert "routes 100% online: 1 of the policy, 1 of the opponent; label: preference, by the labeler" in shown
    assert "labeler shortest" in shown
    shown = started(capsys, train(pairs, tmp_path / "egpo", "--method", "egpo", *judged))
    assert "update extragradient: each odd step looks ahead" in shown
    assert "2 of the policy (temperature 2, top_k 10), 1 of the policy; value: preference over the last" in shown
    shown = started(capsys, train(pairs, tmp_path / "xpo", "--method", "xpo", *judged))
    assert "loss dpo(beta=0.1) + 1e-05 x optimism, mean over the reference's answers" in shown


def test_the_policy_judges_itself_from_the_command_line(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No labeler is named; the embedded model can be asked: its tokenizer knows the digits, and the rubric fits."""
    more = ("--method", "self-rewarding", "--num_generations", "2", "--ref_model_sync_steps", "1")
    shown = started(capsys, train(pairs, tmp_path / "run", *more))
    assert "labeler self (the policy judges its own answers)" in shown
    records = [json.loads(line) for line in (tmp_path / "run" / "pairs.jsonl").read_text().splitlines()]
    assert {record["labeler"] for record in records} == {"self"}
    again = started(capsys, train(pairs, tmp_path / "named", "--method", "online-dpo", "--labeler", "self"))
    assert "labeler self (the policy judges its own answers)" in again


def test_spin_from_a_supervised_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demonstrations.jsonl"
    rows = [{"prompt": f"When does boat {i} leave?", "completion": f"It leaves at {i}."} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = started(capsys, train(str(path), tmp_path / "run", "--method", "spin", "--held_out_fraction", "0.25"))
    assert "the row's chosen, 1 of the policy; label: the first always wins" in shown
    assert "6 rows" in shown


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "xpo"], "method xpo needs a labeler for its route 'online'"),
        (["--method", "salsa", "--labeler", "self"], "name it with --soup_model DIR"),
        (["--method", "dpo", "--soup_model", "x"], "soup_model is for methods whose reference is an average"),
        (["--method", "xpo", "--num_generations", "4"], "num_generations=4 changes nothing: method xpo says itself"),
    ],
)
def test_what_newer_methods_miss_is_said_in_a_line(
    more: list[str], words: str, pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, *train(pairs, tmp_path / "run", *more))


@pytest.mark.parametrize("method", ["spin", "selm"])
def test_prompts_alone_are_refused_where_answers_are_read(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "When does the boat leave?"}\n')
    assert "prompts without answers" in refused(capsys, *train(str(path), tmp_path / "run", "--method", method))


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
