"""Every form in which a labeler may be given, and what is said of those that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from setsail.core import ConfigError
from setsail.labelers import Combined, MissingGuard, RewardFunctions, RewardModel, Scripted, resolve

from .conftest import group_of

FILE = """
import math
from setsail.labelers import Scripted

def brevity(completions, **kwargs):
    return [-float(len(text)) for text in completions]

ready = Scripted({}, name="ready")
number = 3

class Judge:
    pass
"""


def length(completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of reward functions and a broken one."""
    (tmp_path / "my rewards.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("x = 1\n\ny = x / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "needy.py").write_text("import a_package_that_is_not_there\n")
    return tmp_path


def test_a_labeler_is_itself() -> None:
    labeler = Scripted({})
    guard = MissingGuard(labeler)
    assert resolve(labeler) is labeler
    assert resolve([guard]) is guard


def test_a_callable_becomes_reward_functions() -> None:
    labeler = resolve(length, hard=True)
    assert isinstance(labeler, RewardFunctions)
    assert labeler.label([group_of("a", "bb")])[0].preference[0][1] == 0.0
    assert resolve(length, scale=2.0).label([group_of("a", "bbb")])[0].preference[1][0] == pytest.approx(0.7310585786)


def test_functions_by_file_and_by_module(folder: Path) -> None:
    labeler = resolve("my rewards.py:brevity", base_dir=folder)
    assert labeler.label([group_of("aaa")])[0].scores == (-3.0,)
    assert resolve(f"{folder}/my rewards.py:brevity").name == "brevity"
    assert resolve("my rewards.py:ready", base_dir=folder).name == "ready"
    assert resolve("math:fsum").name == "fsum"


def test_models_by_instance_and_directory(
    tmp_path: Path, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    labeler = resolve(model, tokenizer=tokenizer, hard=True, batch_size=3, reversed=True, max_length=64)
    assert isinstance(labeler, RewardModel)
    assert (labeler.hard, labeler.batch_size, labeler.reversed, labeler.max_length) == (True, 3, True, 64)
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    for given, base in (("rm", tmp_path), (str(tmp_path / "rm"), None), (tmp_path / "rm", None)):
        assert resolve(given, base_dir=base).name == "rm"


def test_a_list_of_functions_is_their_weighted_sum() -> None:
    labeler = resolve([length, lambda completions: [1.0, 0.0]], weights=[1, 3], scale=2.0)
    assert isinstance(labeler, RewardFunctions)
    assert labeler.label([group_of("a", "bb")])[0].scores == (4.0, 2.0)
    assert resolve(length, weights=[3.0]).label([group_of("aa")])[0].scores == (6.0,)


def test_functions_and_models_add_their_scores(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    model = resolve(make_model(), tokenizer=make_tokenizer())
    both = resolve([length, make_model()], weights=[2, -1], tokenizer=make_tokenizer(), scale=3.0, hard=True)
    assert isinstance(both, Combined)
    assert (both.over, both.scale, both.hard) == ("scores", 3.0, True)
    group = group_of("a", "bb")
    alone = model.label([group])[0].scores
    assert both.label([group])[0].scores == pytest.approx((2 - alone[0], 4 - alone[1]), abs=1e-5)


def test_a_labeler_in_the_list_means_averaged_probabilities() -> None:
    script = Scripted({("q", "a"): 0.0, ("q", "bb"): 0.0})
    labeler = resolve([length, script], weights=[1, 1])
    assert isinstance(labeler, Combined)
    assert labeler.label([group_of("a", "bb")])[0].preference[1][0] == pytest.approx((0.7310585786 + 0.5) / 2)
    assert resolve([length, script], hard=True).label([group_of("a", "bb")])[0].preference[1][0] == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing", r"'nothing': it is none of the things that label; accepted are: 'path/to/file\.py:function'"),
        ("./no/such/model", "none of the things that label"),
        (3, "labeler 3: it is none"),
        (None, "labeler None: it is none"),
        ([], "the list of labelers is empty"),
        (Scripted, "the class Scripted; make an instance"),
        ("rewards.py", r"names a file but no function in it: write 'rewards\.py:function'"),
        ("absent.py:f", r"there is no file .*absent\.py"),
        ("my rewards.py:brevty", "has no 'brevty'; did you mean 'brevity'"),
        ("my rewards.py:zzz", "has no 'zzz'; it defines: Judge, Scripted, brevity"),
        ("my rewards.py:number", r"'my rewards.py:number' is 3; a function or a Labeler is wanted"),
        ("my rewards.py:Judge", "is the class Judge; name an instance of it"),
        ("broken.py:f", r"importing .*broken\.py failed: ZeroDivisionError: division by zero \(.*broken\.py, line 3\)"),
        ("syntax.py:f", r"failed: SyntaxError: .*syntax\.py, line 1"),
        ("needy.py:f", r"failed: ModuleNotFoundError: No module named 'a_package_that_is_not_there'.*line 1\)"),
        ("no_such_package.rewards:f", "there is no module 'no_such_package' to import; install it"),
        ("math:fsun", "has no 'fsun'; did you mean 'fsum'"),
        (Path("absent"), "there is no directory"),
    ],
)
def test_what_is_said_of_the_rest(given: Any, message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(given, base_dir=folder)


def test_a_hub_id_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    def offline(*args: Any, **kwargs: Any) -> None:
        assert kwargs["trust_remote_code"] is False
        raise OSError("it is not on\nthis machine")

    monkeypatch.setattr(AutoConfig, "from_pretrained", offline)
    with pytest.raises(
        ConfigError, match=r"'some/reward-model', read as a hub id .* OSError: it is not on this machine"
    ):
        resolve("some/reward-model")


@pytest.mark.parametrize("options", [{"hard": True}, {"scale": 2.0}])
def test_options_that_cannot_reach_a_built_labeler(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'scripted' is built already"):
        resolve(Scripted({}), **options)


def test_weights_must_match() -> None:
    with pytest.raises(ConfigError, match="1 weights for 2 labelers"):
        resolve([length, length], weights=[1])
    with pytest.raises(ConfigError, match="2 weights for 1 labelers"):
        resolve(length, weights=[1, 2])


def test_functions_alone_load_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from setsail.labelers import resolve\n"
        "resolve(lambda completions: [0.0]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
