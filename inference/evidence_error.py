"""How well the evidence is known: from one run by its genealogy, or from replicates.

Let e run over the ancestors at time 0 ("Eves"), S_e be the final normalised weight of the
descendants of e and r the number of resamplings. Then

    V = 1 - (N / (N - 1))^(r + 1) (1 - sum_e S_e^2),    E[Zhat^2 V] = Var(Zhat),

exactly for multinomial resampling at fixed times (Lee and Whiteley 2018, Theorem 1), so that V
estimates Var(log Zhat). Chan and Lai 2013 have the power 1 in place of r + 1. Less noisy resampling
makes V conservative. With one Eve left V = 1 says nothing: count from a later generation (`lag`,
Olsson and Douc 2019), or replicate.

Shape letters: N particles, T steps, R replicates.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jurax.inference import diagnostics
from jurax.ppl import Posterior, weights


def log_evidence_variance(
    posterior: Posterior, *, lag: int | None = None, method: str = "lee_whiteley"
) -> float:
    """Estimate of Var(log Zhat) from the genealogy of one run.

    Args:
        posterior: of one problem, of a particle method that reports its ancestors.
        lag: take ancestors `lag` steps back, not at time 0; for runs with few Eves.
        method: "lee_whiteley" or "chan_lai".

    Raises:
        ValueError: if one ancestor is left; the message says what to do.

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> posterior = infer(jax.random.key(1), model, ParticleFilter(num_particles=1000))
        >>> 0 < log_evidence_variance(posterior) < 0.1
        True
    """
    if method not in ("lee_whiteley", "chan_lai"):
        raise ValueError(f"method must be 'lee_whiteley' or 'chan_lai', got {method!r}")
    if posterior.log_weights.ndim != 1:
        raise ValueError(
            "log_evidence_variance works on one problem of particles: use posterior[i]"
        )
    lines = diagnostics.lineages(posterior)
    steps = len(lines) - 1
    start = 0 if lag is None else max(0, steps - lag)
    eves = lines[start]
    if len(np.unique(eves)) == 1 and len(eves) > 1:
        raise ValueError(
            "all particles descend from one ancestor, so the genealogy says nothing about the "
            f"error of the evidence: pass a lag below {steps}, raise num_particles, or run "
            "replicates and use combine_evidence"
        )
    count = int(diagnostics.resampling_times(posterior)[start:].sum())
    power = count + 1 if method == "lee_whiteley" else 1
    return float(relative_variance(posterior.log_weights, jnp.asarray(eves), power))


def relative_variance(
    log_weights: Float[Array, " N"], eves: Int[Array, " N"], power: int | Array
) -> Float[Array, ""]:
    """V of the module docstring, with `power` = r + 1."""
    normalized = weights.normalized(log_weights)
    num = len(log_weights)
    shares = jnp.zeros(num, normalized.dtype).at[eves].add(normalized)
    ratio = num / max(num - 1, 1)
    return 1 - ratio**power * (1 - jnp.sum(shares**2))


def combine_evidence(log_estimates: Float[Array, " R"]) -> tuple[float, float]:
    """Log of the mean of R independent estimates Zhat, and its standard error.

    The mean of unbiased estimates is unbiased; the mean of their logarithms is not. The error is
    the jackknife's, sd sqrt((R - 1)^2 / R) of the log-means that leave one out.

    Example:
        >>> import jax.numpy as jnp
        >>> value, error = combine_evidence(jnp.log(jnp.array([1.0, 3.0])))
        >>> round(value, 3), round(error, 3)  # log 2; leave-one-out: log 3 and log 1
        (0.693, 0.549)
    """
    estimates = np.asarray(log_estimates, np.float64)
    if estimates.ndim != 1 or len(estimates) < 2:
        raise ValueError(f"expected at least 2 estimates, got shape {estimates.shape}")
    top = estimates.max()
    if not np.isfinite(top):
        raise ValueError("no estimate is finite: every replicate is dead, so there is no evidence")
    ratios = np.exp(estimates - top)
    total, num = ratios.sum(), len(ratios)
    # Leaving out the only replicate of weight makes its log-mean -inf and the error infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.log((total - ratios) / (num - 1))
        error = np.sqrt((num - 1) / num * np.sum((left - left.mean()) ** 2))
    error = float("inf") if np.isnan(error) else float(error)
    return float(top + np.log(total / num)), error


def coalescence_time(posterior: Posterior) -> int:
    """The last time at which all final particles have one common ancestor; -1 if at none.

    Example:
        >>> import jax
        >>> from jurax.inference import ImportanceSampling, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=2)
        >>> coalescence_time(infer(jax.random.key(1), model, ImportanceSampling(num_particles=3)))
        -1
    """
    alone = np.flatnonzero(diagnostics.unique_ancestors(posterior) == 1)
    return int(alone.max()) if alone.size else -1
