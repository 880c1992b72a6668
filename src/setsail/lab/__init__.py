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

from setsail.lab.best_of_n import best_of_n_estimate, best_of_n_kl, best_of_n_kl_bound, best_of_n_policy
from setsail.lab.dynamics import (
    Rule,
    Trajectory,
    dno_exact,
    extragradient,
    harmonic_steps,
    inpo_exact,
    iterate,
    local_factor,
    mirror_descent,
    nash_md,
    sppo_exact,
)
from setsail.lab.equilibria import equilibrium
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
from setsail.lab.games import PreferenceGame, exact_kl
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
from setsail.lab.groups import CandidateDraw, TabularWorld, WeightedGroups, candidate_law, route_groups
from setsail.lab.mixture import mixture_gradient, stated_objective
from setsail.lab.named_games import (
    random_game,
    ranking_game,
    rock_paper_scissors,
    tilted_rock_paper_scissors,
    uneven_cycle,
)
from setsail.lab.optimum import Fit, best_reward_at_kl, optimal_policy, train_exact
from setsail.lab.pairs import WeightedPairs, bradley_terry, dataset_pairs, policy_pairs
from setsail.lab.rates import Rate, fit_rate
from setsail.lab.training import train
from setsail.lab.worlds import golden_world, six_responses, token_world

__all__ = [
    "CandidateDraw",
    "Fit",
    "GradientEstimate",
    "PreferenceGame",
    "Rate",
    "Rule",
    "Surrogate",
    "TabularWorld",
    "Trajectory",
    "WeightedGroups",
    "WeightedPairs",
    "best_of_n_estimate",
    "best_of_n_kl",
    "best_of_n_kl_bound",
    "best_of_n_policy",
    "best_reward_at_kl",
    "bradley_terry",
    "candidate_law",
    "dataset_pairs",
    "ddp_objective",
    "dno_exact",
    "equilibrium",
    "exact_kl",
    "expected_gradient",
    "expected_reward",
    "extragradient",
    "finite_difference",
    "fit_rate",
    "forward_kl",
    "golden_world",
    "gradient",
    "gradient_variance",
    "harmonic_steps",
    "inpo_exact",
    "iterate",
    "label_entropy",
    "local_factor",
    "mirror_descent",
    "mixture_gradient",
    "monte_carlo_gradient",
    "nash_md",
    "optimal_policy",
    "oracle_objective",
    "parameters",
    "per_pair_gradients",
    "policy_pairs",
    "random_game",
    "ranking_game",
    "reverse_kl",
    "risk",
    "rock_paper_scissors",
    "route_groups",
    "scores",
    "self_objective",
    "six_responses",
    "sppo_exact",
    "stated_objective",
    "tilted_rock_paper_scissors",
    "token_world",
    "train",
    "train_exact",
    "uneven_cycle",
]
