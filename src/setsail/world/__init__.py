"""The world that `setsail demo` trains in: a harbor town's front desk, a gold reward, a tiny model and its data.

>>> from setsail.world import explain, gold_reward
>>> explain("When does the bakery open?", "The bakery opens at 6 am.")["facts"]
1.0

Importing this package is quick and pulls no torch. `docs/world.md` describes the world and how it was built.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from .asking import draw_request, is_held_out
from .reward import WEIGHTS, explain, gold_reward

__all__ = [
    "WEIGHTS",
    "draw_request",
    "explain",
    "gold_reward",
    "held_out_path",
    "is_held_out",
    "model_path",
    "pairs_path",
]


def _asset(name: str) -> Path:
    """Path of a shipped asset; transformers reads model folders from disk, so the package must be unpacked there."""
    path = Path(str(files(__name__).joinpath("assets", name)))
    if not path.exists():
        raise FileNotFoundError(
            f"The world's asset {name!r} is not at {path}: setsail was installed without its data files or runs from a"
            " zip archive. Reinstall it with pip, or run scripts/build_world.py in a source checkout."
        )
    return path


def model_path() -> Path:
    """Folder of the starting model and its tokenizer, for `AutoModelForCausalLM.from_pretrained`."""
    return _asset("model")


def pairs_path() -> Path:
    """Offline preference pairs as gzipped JSON lines with conversational `prompt`, `chosen` and `rejected`."""
    return _asset("pairs.jsonl.gz")


def held_out_path() -> Path:
    """Prompts that neither the model nor the pairs have seen, as JSON lines with a conversational `prompt`."""
    return _asset("held_out.jsonl")
