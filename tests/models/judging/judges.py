"""Tables of simulated judges, drawn from the prior of the simplex program."""

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jurax.models.judging.judge_law import confusion, ordered


def draw(
    rng: np.random.Generator,
    num_candidates: int,
    num_items: int,
    num_judges: int,
    num_levels: int,
    drift: float = 0.0,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Scores, true levels `(C, items)` (0, ..., M - 1) and true scores of candidates."""
    prevalence = rng.dirichlet(np.ones(num_levels), num_candidates)
    gaps = np.exp(0.7 + 0.5 * rng.normal(size=(num_judges, num_levels - 1)))
    location = ordered(jnp.asarray(gaps)) + rng.normal(size=(num_judges, 1))
    cuts = np.exp(0.7 + 0.5 * rng.normal(size=(num_judges, num_levels - 2)))
    cut = ordered(jnp.asarray(cuts)) if num_levels > 2 else jnp.zeros((num_judges, 1))
    shift = drift * rng.normal(size=(num_judges, num_candidates))
    theta = np.asarray(confusion(location, cut, jnp.asarray(shift)), float)
    truth = np.array([rng.choice(num_levels, num_items, p=pi) for pi in prevalence])
    rows = []
    for j in range(num_judges):
        below = theta[j, np.arange(num_candidates)[:, None], truth].cumsum(axis=-1)
        given = (rng.random(truth.shape)[..., None] > below[..., :-1]).sum(axis=-1)
        candidate, item = np.indices(truth.shape)
        rows.append(
            pd.DataFrame(
                {
                    "item": item.ravel(),
                    "candidate": candidate.ravel(),
                    "judge": f"judge {j}",
                    "score": given.ravel(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True), truth, prevalence @ np.arange(num_levels)
