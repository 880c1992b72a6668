"""Reference rules: which policy is the reference, and when it moves. Pure: (rule, step) -> what to do."""

from setsail.reference.rules import ReferenceRule, average, every, fixed, one_move_behind

__all__ = ["ReferenceRule", "average", "every", "fixed", "one_move_behind"]
