"""Pairing: which of a prompt's candidates are compared. Pure functions of scores and counts."""

from setsail.pairing.rules import RULES, PairingRule, all_pairs, best_worst, first_two

__all__ = ["RULES", "PairingRule", "all_pairs", "best_worst", "first_two"]
