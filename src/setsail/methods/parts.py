"""The parts a method is made of: routes and addends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from setsail.core import SpecError, nearest
from setsail.objectives import forward_kl_sampled
from setsail.pairing import RULES

Responses = Literal["dataset", "policy"]
Preference = Literal["dataset", "policy", "labeler"]
Labels = Literal["averaged", "sampled"]

RESPONSES: tuple[Responses, ...] = ("dataset", "policy")
PREFERENCES: tuple[Preference, ...] = ("dataset", "policy", "labeler")
LABELS: tuple[Labels, ...] = ("averaged", "sampled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a training pair comes from, and how it enters the loss.

    The loss of a pair on the route is ``coefficient * loss + correction * sg(loss - b) * (log pi(y1) + log pi(y2))``.

    Attributes:
        name: short name, the prefix of the route's metrics.
        responses: who wrote the two completions: the data set, or the policy under training.
        preference: who says which is better: the data set, the policy's implicit reward, or a labeler.
        weight: probability that a row takes this route, in [0, 1].
        coefficient: multiplies the route's loss.
        correction: coefficient of the online correction; 0 leaves it out.
        labels: use the preference as a probability ("averaged") or draw a hard label from it ("sampled").
        pairing: which of the drawn candidates are compared, a name of :data:`setsail.pairing.RULES`.
    """

    name: str
    responses: Responses
    preference: Preference
    weight: float
    coefficient: float = 1.0
    correction: float = 0.0
    labels: Labels = "averaged"
    pairing: str = "first-two"

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_names()
        if self.responses == "dataset" and self.preference == "dataset":
            raise SpecError(
                f"route {self.name!r}: the data set's completions with the data set's preference are the "
                "offline pairs, "
                "which need no route; leave it out and the rows that take no other route are trained that way"
            )
        if self.responses == "policy" and self.preference == "dataset":
            raise SpecError(
                f"route {self.name!r}: the data set holds no preference between completions that the policy draws; "
                "use preference='labeler' (a reward) or 'policy' (self-labeling)"
            )
        if self.responses == "dataset" and self.correction:
            raise SpecError(
                f"route {self.name!r}: a correction of {self.correction} belongs to completions drawn from the policy, "
                "but these come from the data set; set the correction to 0 or use responses='policy'"
            )
        if self.is_self_labeled and self.pairing == "best-worst":
            raise SpecError(
                f"route {self.name!r}: best-worst pairs are chosen by score, but the policy labels its own "
                "pairs without "
                "scores; use pairing='first-two' or 'all-pairs'"
            )
        if self.correction and self.pairing == "best-worst":
            raise SpecError(
                f"route {self.name!r}: the online correction needs independent draws, but best-worst pairs are chosen "
                "by score; use pairing='first-two' or set the correction to 0"
            )

    def _check_numbers(self) -> None:
        if not 0 <= self.weight <= 1:
            raise SpecError(f"route {self.name!r}: weight must be a probability in [0, 1], got {self.weight}")
        for what, value in (("coefficient", self.coefficient), ("correction", self.correction)):
            if not 0 <= value < float("inf"):
                raise SpecError(f"route {self.name!r}: {what} must be a number >= 0, got {value}")

    def _check_names(self) -> None:
        known = {
            "responses": (self.responses, RESPONSES),
            "preference": (self.preference, PREFERENCES),
            "labels": (self.labels, LABELS),
            "pairing": (self.pairing, tuple(RULES)),
        }
        for what, (given, allowed) in known.items():
            if given not in allowed:
                raise SpecError(
                    f"route {self.name!r}: {what} must be one of {', '.join(allowed)}, got "
                    f"{given!r}{nearest(given, allowed)}"
                )

    @property
    def is_self_labeled(self) -> bool:
        """Whether the policy's own implicit reward is the label."""
        return self.preference == "policy"


def self_labeled_dataset(*, weight: float, coefficient: float) -> Route:
    """DDP: the data set's completions, labeled again by the policy (weight r, coefficient rho)."""
    return Route(name="ddp", responses="dataset", preference="policy", weight=weight, coefficient=coefficient)


def on_policy_self_labeled(*, weight: float, coefficient: float, correction: float = 0.0) -> Route:
    """DPP: completions drawn from the policy and labeled by it (weight p, coefficient and correction pi)."""
    return Route(
        name="dpp",
        responses="policy",
        preference="policy",
        weight=weight,
        coefficient=coefficient,
        correction=correction,
    )


def on_policy(*, weight: float, correction: float = 0.0) -> Route:
    """DPR: completions drawn from the policy, labeled by a reward model or program (weight g, correction gamma)."""
    return Route(name="dpr", responses="policy", preference="labeler", weight=weight, correction=correction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addend:
    """A term added to the loss, computed on extra completions of each step's prompts.

    Attributes:
        name: short name, the prefix of its metrics.
        samples: whose completions it needs.
        function: ``(policy log-prob, reference log-prob) -> value``, each of shape ``(completions,)``.
        coefficient: multiplies the mean value.
    """

    name: str
    samples: Literal["reference"]
    function: Callable[[Tensor, Tensor], Tensor]
    coefficient: float

    def __post_init__(self) -> None:
        if not 0 <= self.coefficient < float("inf"):
            raise SpecError(f"addend {self.name!r}: coefficient must be a number >= 0, got {self.coefficient}")


def forward_kl(*, coefficient: float) -> Addend:
    """``coefficient * KL(pi_ref || pi)``, estimated on completions drawn from the reference."""
    return Addend(name="forward_kl", samples="reference", function=forward_kl_sampled, coefficient=coefficient)
