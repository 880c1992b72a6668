"""Pairing: which of a prompt's candidates are compared. Pure functions of counts, values and preferences."""

from setsail.pairing.rules import RULES, PairingRule, Standing, rule, win_rates

__all__ = ["RULES", "PairingRule", "Standing", "rule", "win_rates"]
