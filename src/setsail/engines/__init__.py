"""Engines: prompts -> candidates."""

from setsail.engines.in_process import TransformersEngine
from setsail.engines.scripted import ScriptedEngine

__all__ = ["ScriptedEngine", "TransformersEngine"]
