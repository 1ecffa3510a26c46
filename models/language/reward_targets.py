"""Potentials that a reward gives to steps: three targets, three posteriors.

With r_t the reward of the prefix and lambda the strength, `emission` weighs a step by r_t^lambda,
`odds` by (r_t / (1 - r_t))^lambda, `value` by (r_t / r_{t-1})^lambda with r_0 = 1.

Shape letters: B problems, N particles, T steps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.models.language.model import AbstractReward

FORMULAS = {
    "emission": "p(x) * prod_t r_t^{strength:g}",
    "odds": "p(x) * prod_t (r_t / (1 - r_t))^{strength:g}",
    "value": "p(x) * r_T^{strength:g}",
}


def log_potential(
    reward_target: str, log_odds: Float[Array, "..."], previous: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log G_t for strength 1; `previous` holds the log-odds before, +inf for r_0 = 1.

    Example:
        >>> import jax.numpy as jnp
        >>> float(log_potential("value", jnp.array(0.0), jnp.array(jnp.inf)))
        -0.6931471824645996
    """
    if reward_target == "odds":
        return log_odds
    log_reward = jax.nn.log_sigmoid(log_odds)
    if reward_target == "emission":
        return log_reward
    return log_reward - jax.nn.log_sigmoid(previous)


def log_potentials(reward_target: str, log_odds: Float[Array, "*B N T"]) -> Float[Array, "*B N"]:
    """Log prod_t G_t of whole solutions for strength 1; NaN marks steps that were not made."""
    before = jnp.concatenate([jnp.full_like(log_odds[..., :1], jnp.inf), log_odds[..., :-1]], -1)
    steps = log_potential(reward_target, log_odds, before)
    return jnp.sum(jnp.where(jnp.isnan(log_odds), 0.0, steps), axis=-1)


def describe(reward, reward_target: str, strength: float, law: str) -> str:
    """The target in words and symbols."""
    if reward is None:
        return f"p(x); {law}"
    formula = FORMULAS[reward_target].format(strength=strength)
    return f"{formula}; {law}, r = {type(reward).__name__}"


def stored_strength(reward: AbstractReward | None, reward_target: str) -> float:
    """The strength that is stored with a reward."""
    if reward is None:
        return 0.0
    stored = dict(reward.strengths)
    if reward_target not in stored:
        raise ValueError(
            f"no strength is stored with {type(reward).__name__} for reward_target="
            f"{reward_target!r}; pass strength=..."
        )
    return stored[reward_target]


def check_target(reward_target: str) -> str:
    """A known reward target."""
    if reward_target not in FORMULAS:
        raise ValueError(f"reward_target must be one of {sorted(FORMULAS)}, got {reward_target!r}")
    return reward_target
