"""The tabular world: objectives and gradients without sampling noise, in float64, in milliseconds.

The objectives are the very functions that train a language model; only expectations become sums. This is how
setsail shows that a method follows the gradient it states.

    >>> import torch
    >>> from setsail import lab
    >>> from setsail.policies.tabular import TabularPolicy
    >>> reference = TabularPolicy(torch.tensor([[0.0, 0.5, -0.4]]))
    >>> policy = TabularPolicy(torch.tensor([[0.3, -0.2, 0.1]]))
    >>> preference = lab.bradley_terry(torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64))
    >>> round(lab.oracle_objective(policy, reference, preference, beta=0.5).item(), 6)
    -0.776199
"""

from setsail.lab.exact import (
    ddp_objective,
    expected_reward,
    forward_kl,
    label_entropy,
    oracle_objective,
    reverse_kl,
    risk,
    self_objective,
)
from setsail.lab.gradients import (
    GradientEstimate,
    Surrogate,
    expected_gradient,
    finite_difference,
    gradient,
    gradient_variance,
    monte_carlo_gradient,
    parameters,
    per_pair_gradients,
    scores,
)
from setsail.lab.mixture import TabularWorld, mixture_gradient, stated_objective
from setsail.lab.optimum import Fit, best_reward_at_kl, optimal_policy, train_exact
from setsail.lab.pairs import WeightedPairs, bradley_terry, dataset_pairs, policy_pairs
from setsail.lab.worlds import golden_world, six_responses, token_world

__all__ = [
    "Fit",
    "GradientEstimate",
    "Surrogate",
    "TabularWorld",
    "WeightedPairs",
    "best_reward_at_kl",
    "bradley_terry",
    "dataset_pairs",
    "ddp_objective",
    "expected_gradient",
    "expected_reward",
    "finite_difference",
    "forward_kl",
    "golden_world",
    "gradient",
    "gradient_variance",
    "label_entropy",
    "mixture_gradient",
    "monte_carlo_gradient",
    "optimal_policy",
    "oracle_objective",
    "parameters",
    "per_pair_gradients",
    "policy_pairs",
    "reverse_kl",
    "risk",
    "scores",
    "self_objective",
    "six_responses",
    "stated_objective",
    "token_world",
    "train_exact",
]
