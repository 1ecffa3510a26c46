"""The ledger of a run: what was spent, in units that compare methods fairly."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


class Cost(eqx.Module):
    """Counts of work. Unknown entries are NaN; entries that do not apply are 0.

    Every field has the batch shape of the run (one entry for each packed problem) or is a scalar.

    Attributes:
        decoded_tokens: sampled tokens, those of discarded and rejected particles included.
        prefilled_tokens: prompt tokens read by the language model; a prompt that is shared by
            its particles counts once.
        reward_tokens: tokens read by the reward model, prompt included.
        reward_calls: evaluations of the reward, one for each scored prefix.
        sequential_passes: forward passes that had to wait for one another (a proxy of latency).
        seconds: wall-clock time; host-only, NaN under jit.

    Example:
        >>> (Cost(decoded_tokens=3) + Cost(decoded_tokens=4, reward_calls=1)).decoded_tokens
        7
    """

    decoded_tokens: float | int | jax.Array = 0
    prefilled_tokens: float | int | jax.Array = 0
    reward_tokens: float | int | jax.Array = 0
    reward_calls: float | int | jax.Array = 0
    sequential_passes: float | int | jax.Array = 0
    seconds: float | jax.Array = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return jax.tree.map(lambda a, b: a + b, self, other)

    def within(self, budget: "Cost") -> Bool[Array, "*B"]:
        """Whether no stated entry of `budget` is exceeded.

        An entry of 0 in a budget is not stated and does not bind, unless every entry is 0: then
        nothing may be spent.

        Example:
            >>> spent = Cost(decoded_tokens=5, sequential_passes=9)
            >>> bool(spent.within(Cost(decoded_tokens=4)))
            False
            >>> bool(spent.within(Cost(decoded_tokens=6)))
            True
        """
        nothing = all(not is_stated(limit) for limit in jax.tree.leaves(budget))
        verdict = jnp.asarray(True)
        for spent, limit in zip(jax.tree.leaves(self), jax.tree.leaves(budget), strict=True):
            if nothing or is_stated(limit):
                verdict = verdict & ~(jnp.asarray(spent) > jnp.asarray(limit))
        return verdict


def is_stated(limit: float | int) -> bool:
    """Whether an entry of a budget binds; budgets are plain numbers, >= 0 and not NaN."""
    if not float(limit) >= 0:
        raise ValueError(f"entries of a budget must be numbers >= 0, got {limit}")
    return float(limit) > 0
