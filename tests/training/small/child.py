"""Trainings that run in a process of their own: ``python child.py plan.json``, also under a launcher.

The plan is a list of cases: ``{"name", "model", "out", "config": {...}, ...}``. Each case's gradients of the first
steps, weights and log history go to ``<out>.pt``; ``"hook"`` names something that happens on the way.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import TrainerCallback

from setsail import SailTrainer
from setsail.training import checkpoint


class HoldAtStep(TrainerCallback):
    """Says where it is and waits to be killed, before the update of one step."""

    def __init__(self, step: int, flag: Path) -> None:
        self.step, self.flag = step, flag

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            _hold(self.flag)


def _hold(flag: Path) -> None:
    flag.touch()
    while True:
        time.sleep(0.05)


def _hold_in_checkpoint(flag: Path) -> None:
    """Hold after the model file of a checkpoint is written, before its marker, when an earlier one is complete."""
    seal = checkpoint.seal

    def held(directory: Path, **facts: Any) -> None:
        if any(directory.parent.glob(f"checkpoint-*/{checkpoint.MARKER}")):
            _hold(flag)
        seal(directory, **facts)

    checkpoint.seal = held


def _peft(case: dict[str, Any]) -> Any:
    if "lora" not in case:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], **case["lora"])


def run(case: dict[str, Any]) -> None:
    """Train one case and write what it came to."""
    recorder = tiny.Recorder()
    callbacks: list[Any] = [recorder]
    flag = Path(case["out"] + ".flag")
    if case.get("hook") == "checkpoint":
        _hold_in_checkpoint(flag)
    elif "hook" in case:
        callbacks.append(HoldAtStep(int(case["hook"]), flag))
    config = tiny.config(case["out"], **case["config"])
    trainer = SailTrainer(
        case["model"],
        ref_model=case.get("reference"),
        args=config,
        train_dataset=tiny.preferences(case.get("rows", 24)),
        eval_dataset=tiny.preferences(6) if case.get("evaluate") else None,
        labeler=getattr(tiny, case.get("labeler", "reward")) if config.resolved_method().needs_labeler else None,
        callbacks=callbacks,
        peft_config=_peft(case),
    )
    trainer.train(resume_from_checkpoint=case.get("resume"))
    evaluation = trainer.evaluate() if case.get("evaluate") else {}
    if trainer.is_world_process_zero():
        found = {
            "gradients": recorder.gradients[:3],
            "weights": tiny.weights(trainer.model),
            "logs": trainer.state.log_history,
            "evaluation": evaluation,
        }
        torch.save(found, case["out"] + ".pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(Path(sys.argv[1]).read_text()):
        run(each)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)
