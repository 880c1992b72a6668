"""The parts a method is made of: sources of candidates, routes and addends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor

from setsail.core import Sampling, SpecError, nearest
from setsail.objectives import forward_kl_full, forward_kl_sampled, negative_log_likelihood, sample_likelihood
from setsail.pairing import PairingRule, rule

Origin = Literal["chosen", "rejected", "policy", "reference", "opponent", "mixture"]
Preference = Literal["dataset", "policy", "labeler", "first", "implicit"]
Labels = Literal["averaged", "sampled"]
Label = Literal["preference", "hard", "win-rates"]
Values = Literal["scores", "win-rates", "last"]
Samples = Literal["fresh-reference", "reference", "policy", "preferred", "compared"]

ORIGINS: tuple[Origin, ...] = ("chosen", "rejected", "policy", "reference", "opponent", "mixture")
GIVEN: tuple[Origin, ...] = ("chosen", "rejected")
PREFERENCES: tuple[Preference, ...] = ("dataset", "policy", "labeler", "first", "implicit")
LABELS: tuple[Labels, ...] = ("averaged", "sampled")
LABEL: tuple[Label, ...] = ("preference", "hard", "win-rates")
VALUES: tuple[Values, ...] = ("scores", "win-rates", "last")
SAMPLES: tuple[Samples, ...] = ("fresh-reference", "reference", "policy", "preferred", "compared")
SAMPLING = tuple(field.name for field in fields(Sampling))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where candidates of a route come from.

    Attributes:
        origin: the data set's ``chosen`` or ``rejected`` answer; or a draw from the policy, from the reference, from
            the method's opponent, or from the token-wise mixture of policy and reference.
        count: how many are drawn; None = the run's ``num_generations``.
        share: for a mixture: the reference's share of the log-probs, ``(1 - share) log pi + share log pi_ref``,
            renormalized at every token; negative shares extrapolate away from the reference.
        sampling: what this source does differently from the run's sampling settings, such as ``(("top_k", 1),)``.
    """

    origin: Origin
    count: int | None = 1
    share: float = 0.0
    sampling: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise SpecError(
                f"a source's origin must be one of {', '.join(ORIGINS)}, got {self.origin!r}"
                f"{nearest(self.origin, ORIGINS)}"
            )
        if self.share and self.origin != "mixture":
            raise SpecError(
                f"a share of {self.share} belongs to a mixture, but this source's origin is {self.origin!r}"
            )
        if self.origin in GIVEN and self.count != 1:
            raise SpecError(f"a data set row has one {self.origin} answer, not {self.count}")
        if self.count is not None and self.count < 1:
            raise SpecError(f"a source gives at least 1 candidate, not {self.count}")
        if not math.isfinite(self.share):
            raise SpecError(f"a mixture's share must be a finite number, got {self.share}")
        self._check_sampling()

    def _check_sampling(self) -> None:
        if self.sampling and not self.is_drawn:
            raise SpecError(
                f"nothing is drawn from the data set's {self.origin} answer, so it takes no sampling settings"
            )
        for name, _ in self.sampling:
            if name not in SAMPLING:
                raise SpecError(
                    f"a source's sampling settings are {', '.join(SAMPLING)}, got {name!r}{nearest(name, SAMPLING)}"
                )

    @property
    def is_drawn(self) -> bool:
        """Whether an engine must draw it."""
        return self.origin not in GIVEN

    def settings(self, run: Sampling) -> Sampling:
        """The run's sampling with this source's own changes."""
        changes: dict[str, Any] = dict(self.sampling)
        return Sampling(**{**run.as_dict(), **changes})

    def __str__(self) -> str:
        name = f"mixture {self.share:g}" if self.origin == "mixture" else self.origin
        if dict(self.sampling) == dict(GREEDY):
            name = f"greedy {name}"
        return name if self.count == 1 else f"{self.count or 'n'} x {name}"


GREEDY: tuple[tuple[str, float], ...] = (("top_k", 1),)
CHOSEN, REJECTED = Source(origin="chosen"), Source(origin="rejected")
DATASET = (CHOSEN, REJECTED)
DRAWN = (Source(origin="policy", count=None),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a training group comes from, and how it enters the loss.

    The loss of a pair on the route is ``coefficient * loss + correction * sg(loss - b) * (log pi(y1) + log pi(y2))``.

    Attributes:
        name: short name, the prefix of the route's metrics.
        candidates: where the candidate completions come from, in order.
        preference: who says which is better: the data set, the policy's implicit reward inside the loss, a labeler, the
            implicit reward of the reference over the opponent (fixed when the completions are drawn), or nobody: the
            ``first`` candidate is better by construction.
        weight: probability that a row takes this route, in [0, 1].
        coefficient: multiplies the route's loss.
        correction: coefficient of the online correction; 0 leaves it out.
        labels: use the preference as a probability ("averaged") or draw a hard label from it ("sampled").
        pairing: which of the candidates are compared, a name of :func:`setsail.pairing.rule`.
        label: a pair's p is the labeler's ``preference`` itself, the ``hard`` decision for the likelier side, or
            ``sigmoid(w1 - w2)`` of the two candidates' win rates among all of them.
        values: what an objective over groups reads: the labeler's scores (win rates where it only compares), win rates
            among all candidates, or the preference of each over the ``last`` candidate, which is then not itself
            compared.
        acquire: share of the drawn groups of a step that are sent to the labeler: those whose implicit margin is
            largest; the others are dropped.
    """

    name: str
    candidates: tuple[Source, ...]
    preference: Preference
    weight: float
    coefficient: float = 1.0
    correction: float = 0.0
    labels: Labels = "averaged"
    pairing: str = "first-two"
    label: Label = "preference"
    values: Values = "scores"
    acquire: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_names()
        self._check_preference()
        if self.correction and not self.is_on_policy:
            whose = self.origins.replace("dataset", "the data set")
            raise SpecError(
                f"route {self.name!r}: a correction of {self.correction} belongs to completions drawn from the policy, "
                f"but these come from {whose}; set the correction to 0 or draw all of them from the policy"
            )
        if self.is_self_labeled and self.rule.reads_values:
            raise SpecError(
                f"route {self.name!r}: {self.pairing} pairs are chosen by score, but the policy labels its own "
                "pairs without scores; use pairing='first-two' or 'all-pairs'"
            )
        if self.correction and self.rule.reads_values:
            raise SpecError(
                f"route {self.name!r}: the online correction needs independent draws, but {self.pairing} pairs are "
                "chosen by score; use pairing='first-two' or set the correction to 0"
            )

    def _check_preference(self) -> None:
        given = not self.draws
        if given and self.preference == "dataset":
            raise SpecError(
                f"route {self.name!r}: the data set's completions with the data set's preference are the "
                "offline pairs, "
                "which need no route; leave it out and the rows that take no other route are trained that way"
            )
        if self.draws and self.preference == "dataset":
            raise SpecError(
                f"route {self.name!r}: the data set holds no preference between completions that are drawn; "
                "use preference='labeler' (a reward) or 'policy' (self-labeling)"
            )
        if self.preference == "first" and self.pairing != "first-two":
            raise SpecError(
                f"route {self.name!r}: its first candidate is better by construction, so there is nothing to rank; use "
                "pairing='first-two'"
            )
        if self.acquire < 1 and not (self.is_on_policy and self.preference == "labeler"):
            raise SpecError(
                f"route {self.name!r}: acquire={self.acquire} saves calls of a labeler on completions of the policy; "
                "this route has none"
            )
        if self.acquire < 1 and self.correction:
            raise SpecError(
                f"route {self.name!r}: the online correction needs independent draws, but acquire={self.acquire} keeps "
                "those of large margin; set acquire to 1 or the correction to 0"
            )
        if self.label != "preference" and self.preference not in ("labeler", "implicit"):
            raise SpecError(
                f"route {self.name!r}: label={self.label!r} is read off a judgement of the candidates, but with "
                f"preference={self.preference!r} there is none; use label='preference'"
            )
        self._check_count()

    def _check_count(self) -> None:
        """Enough candidates for one comparison, where no source leaves its count open."""
        if any(source.count is None for source in self.candidates):
            return
        given = self.number_of_candidates(0)
        compared, needed = given - (self.values == "last"), self.rule.size or 2
        if compared < needed:
            yardstick = " besides the one that values='last' compares them with" if self.values == "last" else ""
            raise SpecError(
                f"route {self.name!r}: {self.pairing} pairs need {needed} candidates{yardstick}, but its sources give "
                f"{compared}; name another source, or leave a count open (count=None)"
            )

    def _check_numbers(self) -> None:
        if not 0 <= self.weight <= 1:
            raise SpecError(f"route {self.name!r}: weight must be a probability in [0, 1], got {self.weight}")
        if not 0 < self.acquire <= 1:
            raise SpecError(f"route {self.name!r}: acquire must be a share in (0, 1], got {self.acquire}")
        for what, value in (("coefficient", self.coefficient), ("correction", self.correction)):
            if not 0 <= value < float("inf"):
                raise SpecError(f"route {self.name!r}: {what} must be a number >= 0, got {value}")

    def _check_names(self) -> None:
        known = {
            "preference": (self.preference, PREFERENCES),
            "labels": (self.labels, LABELS),
            "label": (self.label, LABEL),
            "values": (self.values, VALUES),
        }
        for what, (given, allowed) in known.items():
            if given not in allowed:
                raise SpecError(
                    f"route {self.name!r}: {what} must be one of {', '.join(allowed)}, got "
                    f"{given!r}{nearest(given, allowed)}"
                )
        if not self.candidates:
            raise SpecError(f"route {self.name!r} has no candidates; name at least one source")
        rule(self.pairing)

    @property
    def rule(self) -> PairingRule:
        """The pairing rule."""
        return rule(self.pairing)

    @property
    def is_self_labeled(self) -> bool:
        """Whether the policy's own implicit reward is the label, inside the loss."""
        return self.preference == "policy"

    @property
    def draws(self) -> bool:
        """Whether some candidate must be drawn."""
        return any(source.is_drawn for source in self.candidates)

    @property
    def is_on_policy(self) -> bool:
        """Whether every candidate is a draw from the policy, reshaped by nothing but the run's own settings."""
        return all(source.origin == "policy" and not source.sampling for source in self.candidates)

    @property
    def needs_dataset_answers(self) -> bool:
        """Whether rows must hold answers, not only prompts."""
        return any(not source.is_drawn for source in self.candidates)

    @property
    def origins(self) -> str:
        """The candidates in words."""
        if self.candidates == DATASET:
            return "dataset"
        return " + ".join("policy" if source == DRAWN[0] else str(source) for source in self.candidates)

    def number_of_candidates(self, generations: int) -> int:
        """How many candidates a row gets."""
        return sum(generations if source.count is None else source.count for source in self.candidates)


def self_labeled_dataset(*, weight: float, coefficient: float) -> Route:
    """DDP: the data set's completions, labeled again by the policy (weight r, coefficient rho)."""
    return Route(name="ddp", candidates=DATASET, preference="policy", weight=weight, coefficient=coefficient)


def on_policy_self_labeled(*, weight: float, coefficient: float, correction: float = 0.0) -> Route:
    """DPP: completions drawn from the policy and labeled by it (weight p, coefficient and correction pi)."""
    return Route(
        name="dpp",
        candidates=DRAWN,
        preference="policy",
        weight=weight,
        coefficient=coefficient,
        correction=correction,
    )


def on_policy(*, weight: float, correction: float = 0.0, **changes: Any) -> Route:
    """DPR: completions drawn from the policy, labeled by a reward model or program (weight g, correction gamma)."""
    return Route(name="dpr", candidates=DRAWN, preference="labeler", weight=weight, correction=correction, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addend:
    """A term added to the loss: ``coefficient * mean of function`` over some completions of each step.

    Attributes:
        name: short name, the prefix of its metrics.
        samples: which completions: drawn afresh from the reference (one a row), or those of the step's groups that the
            reference wrote, that the policy wrote, that are preferred in their pair, or that are compared at all.
        function: ``(policy log-prob, reference log-prob) -> value``, each of shape ``(completions,)``; with
            ``distributions``, of shape ``(tokens, vocabulary)`` in and ``(tokens,)`` out, averaged over tokens.
        coefficient: multiplies the mean value.
        distributions: whether it reads next-token distributions instead of the log-probs of the completion.
        per_token: whether the log-probs it reads are divided by the completion's length first.
    """

    name: str
    samples: Samples
    function: Callable[[Tensor, Tensor], Tensor]
    coefficient: float
    distributions: bool = False
    per_token: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.coefficient < float("inf"):
            raise SpecError(f"addend {self.name!r}: coefficient must be a number >= 0, got {self.coefficient}")
        if self.samples not in SAMPLES:
            raise SpecError(
                f"addend {self.name!r}: samples must be one of {', '.join(SAMPLES)}, got {self.samples!r}"
                f"{nearest(self.samples, SAMPLES)}"
            )


def forward_kl(*, coefficient: float) -> Addend:
    """``coefficient * KL(pi_ref || pi)``, estimated on completions drawn from the reference."""
    return Addend(name="forward_kl", samples="fresh-reference", function=forward_kl_sampled, coefficient=coefficient)


def token_forward_kl(*, coefficient: float) -> Addend:
    """``coefficient * KL(pi_ref || pi)`` of the next token, exact over the vocabulary, at each compared token."""
    return Addend(
        name="token_forward_kl",
        samples="compared",
        function=forward_kl_full,
        coefficient=coefficient,
        distributions=True,
    )


def likelihood_of_preferred(*, coefficient: float, per_token: bool = True) -> Addend:
    """``- coefficient * log pi`` of the completion that its label prefers, per token or per completion."""
    return Addend(
        name="likelihood",
        samples="preferred",
        function=negative_log_likelihood,
        coefficient=coefficient,
        per_token=per_token,
    )


def optimism(*, coefficient: float, function: Callable[[Tensor, Tensor], Tensor] = sample_likelihood) -> Addend:
    """Lowers the likelihood of the reference's own completions, so that mass moves to answers not yet seen."""
    return Addend(name="optimism", samples="reference", function=function, coefficient=coefficient)
