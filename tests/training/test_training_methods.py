"""Every method of the catalogue trains a language model, and a run of it that was stopped goes on exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import StopAfter
from transformers import PreTrainedTokenizerFast, PrinterCallback

from setsail import SailTrainer, methods

STEPS = 20
# 20 rows by 3: an epoch of 7 steps, the last with 2 rows, so that epochs cut the rounds of 4.
ROWS = tiny.preferences(20)
SHORT = 4
"""Steps of a method that trains by the code of another."""
ALIKE = {
    "dpo": ("cdpo", "rdpo", "f-dpo", "dpo-gamma", "dpo-positive", "dpo-length", "dpo-per-token", "cpl", "exo",
            "discopop", "nca", "apo-zero", "apo-down", "sppo-hard", "simpo"),
    "rpo": ("slic-hf",),
    "cpo": ("rpo-per-token", "orpo", "asft"),
    "lipo": ("pl-dpo", "robust-listwise", "rank-net", "list-net"),
    "pro": ("rrhf",),
    "rloo": ("copg",),
    "grpo": ("p3o", "f-dpg"),
}  # fmt: skip
"""By method: those that differ from it in nothing but the formula of their loss, or in a number."""
SHORTENED = {name for names in ALIKE.values() for name in names}
WHOLE = [name for name in methods.names() if name not in SHORTENED]
MOVING = ("iterative-dpo", "dice", "apo-accelerated", "inpo", "nash-ema")
"""One method for each way in which frozen policies move."""


@dataclass(frozen=True)
class Done:
    """What a run came to."""

    trainer: SailTrainer
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    files: dict[str, Any]

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [log for log in self.trainer.state.log_history if "loss" in log]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """A policy with room for the rubric, and a second model fine-tuned from it, so to say."""
    folder = tmp_path_factory.mktemp("models")
    models = {name: tiny.llama(len(tokenizer), max_position_embeddings=1024) for name in ("policy", "second")}
    tiny.perturbed(models["second"], scale=0.01)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def run(paths: dict[str, str]) -> Run:
    """``run(name, folder, resume=..., **options)``: a method trained; interrupted where a callback interrupts."""

    def train(name: str, folder: Path, *, resume: bool = False, callbacks: Any = (), **options: Any) -> Done:
        settings = {
            "max_steps": STEPS, "per_device_train_batch_size": 3, **tiny.shortened(name),
            # Both answers of an off-policy pair soon lose mass to the rest, and an alarm says so.
            "learning_rate": 1e-5 if name == "rs-dpo" else 3e-5,
            "soup_model": paths["second"] if methods.get(name).soup_share else None, **options,
        }  # fmt: skip
        config = tiny.config(folder, **settings)
        method = config.resolved_method()
        trainer = SailTrainer(
            paths["policy"],
            args=config,
            train_dataset=ROWS,
            labeler=tiny.reward if method.needs_labeler and method.judge is None else None,
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=resume or None)
        files = {kind: folder / f"{kind}.jsonl" for kind in ("metrics", "pairs", "groups")}
        return Done(
            trainer,
            tiny.weights(trainer.model),
            _optimizer(trainer),
            {
                kind: tiny.timeless(tiny.lines(file)) if kind == "metrics" else file.read_bytes()
                for kind, file in files.items()
                if file.exists()
            },
        )

    return train


def _optimizer(trainer: SailTrainer) -> dict[str, torch.Tensor]:
    state = trainer.optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, each in state.items() for name, value in each.items()}


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Done]:
    """``whole(name)``: the uninterrupted run of a method, trained once for all tests."""
    folder, done = tmp_path_factory.mktemp("whole"), dict[str, Done]()

    def get(name: str) -> Done:
        if name not in done:
            done[name] = run(name, folder / name)
        return done[name]

    return get


def test_methods_that_train_alike_differ_in_the_objective_alone() -> None:
    def parts(name: str) -> Any:
        method = methods.get(name)
        kinds = [(each.samples, each.per_token) for each in method.addends if each.coefficient]
        return (
            method.form, method.routes, method.offline, set(method.facts.values()), kinds, method.reads_values,
            method.reference, method.staleness, method.update,
        )  # fmt: skip

    for name, others in ALIKE.items():
        assert all(parts(other) == parts(name) for other in others), name


@pytest.mark.parametrize("name", sorted(SHORTENED))
def test_a_method_of_a_family_trains(run: Run, paths: dict[str, str], tmp_path: Path, name: str) -> None:
    done = run(name, tmp_path, max_steps=SHORT)
    assert [log["step"] for log in done.logs] == list(range(1, SHORT + 1))
    assert all(math.isfinite(value) for log in done.logs for value in log.values())
    assert done.trainer.alarms.raised == {}
    start = tiny.weights(type(done.trainer.model).from_pretrained(paths["policy"]))
    assert tiny.relative_difference(start, done.weights) > 1e-5


@pytest.mark.parametrize("name", WHOLE)
def test_a_method_trains(whole: Callable[[str], Done], paths: dict[str, str], name: str) -> None:
    """Every number is finite, every route is learnt from, no alarm sounds, and the policy has moved."""
    method, done = methods.get(name), whole(name)
    assert [log["step"] for log in done.logs] == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) for log in done.logs for value in log.values())
    assert done.trainer.alarms.raised == {}
    seen = {metric for log in done.logs for metric in log}
    for route in method.active_routes:
        assert f"sail/{route.name}/loss" in seen
    assert ("sail/offline/loss" in seen) == (method.offline_weight > 0)
    for addend in method.addends:
        assert f"sail/{addend.name}" in seen
    # Labels that decide something: not all of them ties.
    entropies = [log[each] for log in done.logs for each in seen if each.endswith("p_entropy") and each in log]
    assert not entropies or min(entropies) < math.log(2) - 1e-4
    start = tiny.weights(type(done.trainer.model).from_pretrained(paths["policy"]))
    assert tiny.relative_difference(start, done.weights) > 1e-4


@pytest.mark.parametrize("name", WHOLE)
def test_a_method_resumes_exactly(run: Run, whole: Callable[[str], Done], tmp_path: Path, name: str) -> None:
    """From a checkpoint of step 13: in the middle of a round and of a pair of look-ahead steps, after three moves.

    The epoch ends after step 14, and the answers of the rest of the round are drawn and labeled then: by the frozen
    policies that were restored, before their next move.
    """
    options = {"save_strategy": "steps", "save_steps": 13}
    with pytest.raises(KeyboardInterrupt):
        run(name, tmp_path / "cut", callbacks=[StopAfter(14)], **options)
    resumed = run(name, tmp_path / "cut", resume=True, **options)
    assert resumed.trainer.resume_source is not None
    assert resumed.trainer.resume_source.name == "checkpoint-13"
    _compare(whole(name), resumed)


@pytest.mark.parametrize("name", MOVING)
def test_a_run_made_longer_moves_where_the_uninterrupted_one_did(
    run: Run, whole: Callable[[str], Done], tmp_path: Path, name: str
) -> None:
    """A run that ended at step 8, where a round ends, and is then made longer: the move of that moment is made."""
    options = {"save_strategy": "steps", "save_steps": 8}
    run(name, tmp_path / "cut", max_steps=8, **options)
    longer = run(name, tmp_path / "cut", resume=True, **options)
    del longer.files["metrics"]  # the first run wrote its own last line
    _compare(whole(name), longer)


def _compare(whole: Done, other: Done) -> None:
    assert tiny.same(whole.weights, other.weights)
    assert tiny.same(whole.optimizer, other.optimizer)
    for kind, content in other.files.items():
        assert content == whole.files[kind], kind
    assert whole.files.keys() - other.files.keys() <= {"metrics"}
    for holder in ("reference", "opponent"):
        held = [getattr(each.trainer.frozen, holder) for each in (whole, other)]
        if held[0] is not None:
            assert tiny.same(held[0].weights(), held[1].weights())
