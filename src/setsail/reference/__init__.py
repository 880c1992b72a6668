"""Reference rules: which policy is the reference, and when it moves. Pure: (rule, step) -> what to do."""

from setsail.reference.rules import ReferenceRule, every, fixed

__all__ = ["ReferenceRule", "every", "fixed"]
