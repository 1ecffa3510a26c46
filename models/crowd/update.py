"""Sequential use: new answers change a posterior of the top-two model without a refit.

Draws of the posterior given the old answers are weighted by p(new answers | p, a, b, old answers),
resampled and moved (`Bridge`). Workers who are new get reliabilities drawn from the prior.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jurax.inference import infer
from jurax.inference.bridge import Bridge
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.top_two_posterior import PRIOR_COUNTS, program
from jurax.ppl import Posterior


def update(
    key: Array,
    posterior: Posterior,
    before: Answers,
    after: Answers,
    gold: Any = None,
    num_particles: int = 500,
    num_points: int = 16,
    **options,
) -> Posterior:
    """The posterior given `after`, from that given `before`; consumes `key`.

    Args:
        key: random key.
        posterior: of `TopTwo().program(before)`, by any sampler, or an earlier update.
        before: the old answers.
        after: `before.added(table)`.
        gold: known labels, as in `TopTwo.fit`; those of old tasks as given to `program(before)`.
        num_particles: draws that are carried over.
        num_points: as given to `program`.
        options: of `Bridge`, such as `move` and `num_moves`.

    Returns:
        Its `log_evidence` is the log-probability of the new answers given the old.

    Raises:
        ValueError: if `after` does not begin with the answers of `before`.
    """
    check_begins_with(after, before)
    key_draws, key_new, key_run = jax.random.split(key, 3)
    draws = posterior.sample(key_draws, num_particles)
    num_new = after.num_workers - before.num_workers
    newcomers = jax.random.beta(key_new, PRIOR_COUNTS, PRIOR_COUNTS, (num_particles, num_new))
    reliability = jnp.concatenate([draws["reliability"], newcomers], axis=1)
    old = np.arange(len(after)) < len(before)
    algorithm = Bridge(
        {"reliability": reliability, "shape": draws["shape"]},
        program(after.subset(old, strict=False), gold, num_points),
        **options,
    )
    return infer(key_run, program(after, gold, num_points), algorithm)


def check_begins_with(after: Answers, before: Answers) -> None:
    """Refuse answers that do not go on from `before`."""
    size = len(before)
    begins = len(after) >= size and all(
        np.array_equal(getattr(after, name)[:size], getattr(before, name))
        for name in ("task", "worker", "label")
    )
    same = begins and all(
        list(getattr(after, name)[: len(getattr(before, name))]) == list(getattr(before, name))
        for name in ("tasks", "workers")
    )
    if not same or list(after.classes) != list(before.classes):
        raise ValueError(
            "after must hold the answers of before, in order, and then the new ones: use "
            "after = before.added(table)"
        )
