"""What a run says of itself before it starts: run.json, config.yaml, environment.json."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import torch
import yaml

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer

PACKAGES = ("setsail", "torch", "transformers", "accelerate", "datasets", "peft", "numpy", "trl")


def describe_run(trainer: SailTrainer, *, resumed_from: str | None) -> None:
    """Write the three files."""
    method, directory = trainer.method, trainer.directory
    directory.describe(
        status="running",
        method=method.name,
        modified=list(method.modified),
        equation=method.equation,
        objective={"name": method.objective.__name__, **method.parameters, "robust_radius": method.robust_radius},
        routes={"offline": method.offline_weight, **{route.name: route.weight for route in method.routes}},
        reference=f"{trainer.frozen.reference.description}; {method.reference}",
        opponent=None if method.opponent is None else str(method.opponent),
        addends={addend.name: addend.coefficient for addend in method.addends},
        update=method.update,
        staleness=method.staleness,
        generations=method.generations,
        sampling=trainer.args.sampling.as_dict(),
        labeler=getattr(trainer.labeler, "name", None),
        rows=len(trainer.train_dataset),
        data_counts=trainer.train_dataset.counts,
        data_fingerprint=trainer.train_dataset.fingerprint,
        resumed_from=resumed_from,
        started=time.time(),
    )
    settings = {**trainer.args.run_settings(), **trainer.command_settings}
    directory.replace("config.yaml", yaml.safe_dump(settings, sort_keys=True, allow_unicode=True))
    directory.replace("environment.json", json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions and hardware, for run.json and bug reports. No paths, no user names, no keys."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
