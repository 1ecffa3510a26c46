"""Do chains agree, and how much are their draws worth: ArviZ on a posterior, and advice.

R-hat and effective sample sizes are those of Vehtari et al. 2021 (rank-normalised, split chains),
computed by ArviZ; the Pareto shape of weights is that of Vehtari et al. 2024.
"""

from typing import Any

import numpy as np

from jurax.inference import diagnostics
from jurax.ppl import Posterior
from jurax.ppl.storage import import_arviz

LARGEST_RHAT = 1.01
LEAST_ESS = 100  # for each chain, bulk and tail
LARGEST_PARETO_K = 0.7
LEAST_SWAP_RATE = 0.1


def summary(posterior: Posterior) -> Any:
    """A table of means, deviations, MCSE, bulk and tail ESS and R-hat, a row for each scalar.

    Weighted particles are resampled to one chain first; their R-hat means nothing and is left out.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import MCMC, RWMH, infer
        >>> from jurax.ppl import bind
        >>> program = bind(lambda: numpyro.sample("x", dist.Normal(0.0, 1.0)))
        >>> posterior = infer(jax.random.key(0), program, MCMC(RWMH(), num_samples=500))
        >>> table = summary(posterior)
        >>> bool(table.loc["x", "r_hat"] < 1.05), "ess_bulk" in table, "mcse_mean" in table
        (True, True, True)
    """
    table = import_arviz().summary(posterior.to_arviz(), round_to="none")
    return table if posterior.num_chains else table.drop(columns="r_hat")


def advice(posterior: Posterior) -> list[str]:
    """What is wrong with a run and what to do about it; an empty list if nothing was found.

    Chains: R-hat above 1.01, bulk or tail ESS below 100 a chain, divergences, poor swap rates.
    Particles: dead or invalid runs, weights with a heavy tail, all descending from one ancestor.
    """
    found = [] if posterior.status == "ok" else [f"The run did not end well: {posterior.status}."]
    if found:
        return found
    return _advice_on_chains(posterior) if posterior.num_chains else _advice_on_weights(posterior)


def pareto_k(posterior: Posterior) -> float:
    """Shape of the Pareto tail of the weights; above .7 their mean is not to be trusted.

    NaN where all weights are equal (after a final resampling) or there are too few of them.
    """
    log_weights = np.asarray(posterior.log_weights, np.float64).reshape(-1)
    finite = log_weights[np.isfinite(log_weights)]
    if len(finite) < 25 or np.ptp(finite) == 0:
        return float("nan")
    return float(import_arviz().psislw(finite)[1])


def _advice_on_chains(posterior: Posterior) -> list[str]:
    found, info = [], posterior.info
    divergences = int(np.sum(np.asarray(info.get("diverging", 0))))
    if divergences:
        found.append(
            f"{divergences} draws diverged: the geometry is too sharp for the step size. Raise "
            "target_acceptance towards 1, or reparametrise (non-centred scales, constraints)."
        )
    rates = np.asarray(info.get("swap_rates", np.ones(1)))
    if rates.min() < LEAST_SWAP_RATE:
        found.append(
            f"neighbouring temperatures swap at a rate of {rates.min():.2f} only: raise "
            "num_replicas or num_warmup."
        )
    table = summary(posterior)
    if posterior.num_chains == 1:
        found.append("one chain says nothing about convergence: raise num_chains to 4.")
    elif (table["r_hat"] > LARGEST_RHAT).any():
        worst = table["r_hat"].idxmax()
        found.append(
            f"chains disagree: R-hat of {worst} is {table['r_hat'].max():.3f} > {LARGEST_RHAT}. "
            "Raise num_warmup and num_samples; if it stays, look for several modes "
            "(ParallelTempering, TemperedSMC)."
        )
    least = LEAST_ESS * (posterior.num_chains or 1)
    for kind, what in (("ess_bulk", "means"), ("ess_tail", "quantiles")):
        if (table[kind] < least).any():
            worst = table[kind].idxmin()
            found.append(
                f"{kind} of {worst} is {table[kind].min():.0f} < {least}: {what} are rough. Raise "
                "num_samples, or choose a kernel that moves further (HMC, NUTS)."
            )
    return found


def _advice_on_weights(posterior: Posterior) -> list[str]:
    found, num_particles = [], posterior.log_weights.shape[-1]
    shape = pareto_k(posterior)
    if shape > LARGEST_PARETO_K:
        found.append(
            f"the weights have a heavy tail (Pareto k = {shape:.2f} > {LARGEST_PARETO_K}): raise "
            "num_particles, resample (ess_threshold > 0) or guide the moves (propose, twist)."
        )
    if "num_steps" not in posterior.info or "ess" not in posterior.info:
        return found
    ess = diagnostics.ess_path(posterior)
    if ess.size and ess.min() < 0.01 * num_particles:
        step = int(ess.argmin()) + 1
        found.append(
            f"at step {step} the effective sample size fell to {ess.min():.1f} of {num_particles}: "
            "that step is hard to predict. Raise num_particles or guide the moves there."
        )
    if (
        num_particles > 1
        and "beta" not in posterior.info
        and (diagnostics.unique_ancestors(posterior)[0] == 1)
    ):
        found.append(
            "all particles descend from one ancestor: nothing is known about early steps given "
            "late data. Use a smoother or ParticleGibbs for them; final steps are not concerned."
        )
    return found
