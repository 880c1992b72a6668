"""Surrogates as training builds them, and the ways in which they could be wrong (acceptance test 5)."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from setsail.lab import Surrogate
from setsail.objectives import LogProbs, dpo, online_correction, self_labeled, self_labeled_sampled


def oracle(beta: float, correction: float = 1.0, baseline: float = 0.0) -> Surrogate:
    """``-F + c sg(-F - b) (log pi(y1) + log pi(y2))``; a correction of -1 flips the sign of the response-score term."""

    def surrogate(logps: LogProbs, p: Tensor) -> Tensor:
        loss = dpo(logps, p, beta)
        if correction < 0:
            return 2 * loss - online_correction(loss, logps, -correction, baseline)
        return online_correction(loss, logps, correction, baseline)

    return surrogate


def self_sampled(beta: float, correction: float = 1.0, label_score: float = 1.0, baseline: float = 0.0) -> Surrogate:
    """``-F - (c/2) F^2 + correction``; a label score of 0 drops ``F grad F``. The hard label comes in from outside."""

    def surrogate(logps: LogProbs, label: Tensor) -> Tensor:
        loss = dpo(logps, label, beta)
        learned = self_labeled_sampled(partial(dpo, beta=beta), logps, 1 - label, label_score, beta)
        return learned + oracle(beta, correction, baseline)(logps, label) - loss

    return surrogate


def self_averaged(beta: float, correction: float = 1.0, label_score: bool = True, baseline: float = 0.0) -> Surrogate:
    """``H + c sg(H - b) (...)``; without the label score the label is a constant."""

    def surrogate(logps: LogProbs, label: Tensor) -> Tensor:
        entropy = self_labeled(partial(dpo, beta=beta), logps, beta)
        learned = entropy if label_score else dpo(logps, label, beta)
        sign = 1.0 if correction >= 0 else -1.0
        return learned + sign * (online_correction(entropy, logps, abs(correction), baseline) - entropy)

    return surrogate
