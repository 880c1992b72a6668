"""Engines: prompts -> candidates."""

from setsail.engines.frozen import FrozenEngine
from setsail.engines.in_process import TransformersEngine
from setsail.engines.mixture import MixtureEngine
from setsail.engines.scripted import ScriptedEngine

__all__ = ["FrozenEngine", "MixtureEngine", "ScriptedEngine", "TransformersEngine"]
