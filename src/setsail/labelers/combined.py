"""Several labelers as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from setsail.core import Candidates, ConfigError, Judgement, Labeler, LabelerError
from setsail.labelers.calling import describe
from setsail.labelers.functions import check_weights
from setsail.labelers.scores import check_scale, judgement_from_scores, missing_judgement

Over = Literal["preference", "scores"]


class Combined:
    """Several labelers, weighted, as one.

        over="preference":  P_ij = sum_k w_k P_ij^k / sum_k w_k
        over="scores":      P_ij = sigmoid((s_i - s_j) / scale),  s_i = sum_k w_k s_i^k

    Averaging probabilities needs nothing of the labelers and no common unit: the default. It gives no scores, so
    pairing rules that rank candidates cannot follow it. Adding scores is what TRL does with a list of reward
    functions: the scores' units must be comparable, and every labeler must give scores.

    Where one of the labelers of nonzero weight says nothing, nothing is said: the rest of them are not a stand-in,
    since pairs would then be judged by different measures. A labeler of weight zero is not asked.

    Args:
        labelers: two or more, or one.
        weights: one each, 1 each by default; not negative when averaging probabilities.
        over: ``"preference"`` or ``"scores"``.
        hard: turn the combined P into 1, 0, or 0.5 on a tie.
        scale: for ``over="scores"``: score gap that counts as one nat of log-odds.
        name: who signs the judgements; by default the labelers' names joined by ``+``.

    Raises:
        ConfigError: unusable weights, ``over`` or ``scale``; when labeling, a labeler without scores that are
            to be added.

    >>> from setsail.core import Completion, Prompt
    >>> from setsail.labelers import Scripted
    >>> group = Candidates(prompt=Prompt(row_id=0, text="q", token_ids=(1,)),
    ...                    completions=(Completion(token_ids=(2,), text="a"), Completion(token_ids=(3,), text="b")))
    >>> sure, unsure = (Scripted({("q", "a"): gap, ("q", "b"): 0.0}) for gap in (100.0, 0.0))
    >>> Combined([sure, unsure], weights=[3, 1]).label([group])[0].preference[0][1]
    0.875
    """

    def __init__(
        self,
        labelers: Sequence[Labeler],
        weights: Sequence[float] | None = None,
        *,
        over: Over = "preference",
        hard: bool = False,
        scale: float = 1.0,
        name: str | None = None,
    ) -> None:
        if over not in ("preference", "scores"):
            raise ConfigError(f"over={over!r}: labelers are combined over 'preference' or over 'scores'")
        if not labelers:
            raise ConfigError("no labeler to combine: give at least one")
        self.labelers = tuple(labelers)
        self.weights = check_weights(weights, len(self.labelers), nonnegative=over == "preference")
        self.over = over
        self.hard = hard
        self.scale = check_scale(scale)
        self.name = name or "+".join(labeler.name for labeler in self.labelers)

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """Ask every labeler of nonzero weight about all groups; one judgement a group."""
        asked = [(labeler, weight) for labeler, weight in zip(self.labelers, self.weights, strict=True) if weight]
        answers = [self._ask(labeler, groups) for labeler, _ in asked]
        weights = [weight for _, weight in asked]
        return [self._combine(weights, parts) for parts in zip(*answers, strict=True)]

    def _ask(self, labeler: Labeler, groups: Sequence[Candidates]) -> list[Judgement]:
        """A failing labeler is missing here, so that the reason keeps its name."""
        try:
            judgements = labeler.label(groups)
            if len(judgements) != len(groups):
                raise LabelerError(f"{len(judgements)} judgements for {len(groups)} groups")
        except ConfigError:
            raise
        except Exception as error:
            reason = describe(error)
            return [missing_judgement(len(g.completions), labeler=labeler.name, reason=reason) for g in groups]
        return judgements

    def _combine(self, weights: Sequence[float], parts: Sequence[Judgement]) -> Judgement:
        reason = "; ".join(f"{part.labeler}: {part.reason}" for part in parts if part.reason)
        if self.over == "scores":
            return judgement_from_scores(
                self._summed(weights, parts), labeler=self.name, hard=self.hard, scale=self.scale, reason=reason
            )
        count = len(parts[0].preference)

        def average(i: int, j: int) -> float | None:
            return _weighted(weights, [part.preference[i][j] for part in parts], normalize=True)

        finish: Callable[[float | None], float | None] = _hardened if self.hard else _unchanged
        preference = tuple(tuple(finish(average(i, j)) for j in range(count)) for i in range(count))
        return Judgement(preference=preference, scores=None, labeler=self.name, reason=reason)

    def _summed(self, weights: Sequence[float], parts: Sequence[Judgement]) -> list[float | None]:
        rows = []
        for part in parts:
            if part.scores is None:
                raise ConfigError(
                    f"labeler {part.labeler!r} gives preferences but no scores, so scores cannot be added: "
                    "combine with over='preference', which averages probabilities"
                )
            rows.append(part.scores)
        return [_weighted(weights, column, normalize=False) for column in zip(*rows, strict=True)]


def _weighted(weights: Sequence[float], values: Sequence[float | None], *, normalize: bool) -> float | None:
    total = 0.0
    for weight, value in zip(weights, values, strict=True):
        if value is None:
            return None
        total += weight * value
    return total / sum(weights) if normalize else total


def _hardened(p: float | None) -> float | None:
    if p is None:
        return None
    # Labelers that disagree by equal amounts cancel up to rounding, and rounding must not decide.
    return 0.5 if abs(p - 0.5) <= 1e-9 else float(p > 0.5)


def _unchanged(p: float | None) -> float | None:
    return p
