"""Simulation-based calibration: does an algorithm find the posterior of its own program?

Draw theta* from the prior and y from p(y | theta*), run the algorithm on y, and count how many of L
posterior draws of a quantity f lie below f(theta*). If the draws are those of the posterior, the
ranks are uniform on 0, ..., L over replications (Talts et al. 2018). The log-likelihood is among
the quantities: parameters alone pass an algorithm that ignores the data (Modrak et al. 2023).

Shape letters: R replications, L draws, K bins.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped
from numpyro.infer.util import compute_log_probs

from jurax.inference.infer import infer
from jurax.ppl import Posterior, random
from jurax.ppl.predictive import generate
from jurax.ppl.program import Program

LOG_LIKELIHOOD = "log likelihood"


class Calibration(eqx.Module):
    """Ranks of simulated truths among posterior draws.

    Attributes:
        ranks: by scalar quantity, `(R,)`, integers in 0, ..., L.
        num_draws: L.
        num_failed: replications whose run did not end well (dead, invalid, no start).
    """

    ranks: dict[str, Int[np.ndarray, " R"]]
    num_draws: int
    num_failed: int

    def p_values(self, num_bins: int = 16) -> dict[str, float]:
        """Chi-square tests of uniform ranks by quantity, each with K bins of equal width."""
        found = {}
        for name, ranks in self.ranks.items():
            bins = ranks * num_bins // (self.num_draws + 1)
            sizes = np.bincount(
                np.arange(self.num_draws + 1) * num_bins // (self.num_draws + 1),
                minlength=num_bins,
            )
            expected = len(ranks) * sizes / (self.num_draws + 1)
            counts = np.bincount(bins, minlength=num_bins)
            statistic = np.sum((counts - expected) ** 2 / expected)
            found[name] = float(jax.scipy.stats.chi2.sf(statistic, num_bins - 1))
        return found

    def passed(self, alpha: float = 0.01) -> bool:
        """Whether no run failed and the smallest p-value exceeds alpha / (number of quantities)."""
        p_values = self.p_values()
        return min(p_values.values()) > alpha / len(p_values) and self.num_failed == 0

    def __str__(self) -> str:
        p_values = self.p_values()
        verdict = "uniform" if self.passed() else "NOT uniform (or runs failed)"
        lines = [f"{name}: p = {p:.3g}" for name, p in p_values.items()]
        head = f"ranks of {len(next(iter(self.ranks.values())))} replications: {verdict}"
        return "\n".join([f"{head}; {self.num_failed} runs failed", *lines])


def sbc(
    key: Array,
    program: Program,
    algorithm: Any,
    num_replications: int = 200,
    *,
    num_draws: int = 63,
    batch_size: int = 20,
) -> Calibration:
    """Calibrate `algorithm` on data simulated from `program`.

    Args:
        key: consumed.
        program: a bound program; of its data only shapes and missing values matter.
        algorithm: anything that `infer` takes and that returns draws by site name.
        num_replications: R.
        num_draws: L; particles are drawn by their weights, chains are thinned evenly. 63 divides
            into 16 bins. Chains must be long enough for thinned draws to be nearly independent.
        batch_size: replications that run at once, mapped together.

    Returns:
        Ranks of every scalar latent value that the posterior holds, and of the log-likelihood
        where it holds all latent sites.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import RWMH, TemperedSMC
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> program, algorithm = bind(model, jnp.zeros(2)), TemperedSMC(64, move=RWMH())
        >>> calibration = sbc(jax.random.key(0), program, algorithm, num_replications=40)
        >>> sorted(calibration.ranks), calibration.num_failed
        (['log likelihood', 'mean'], 0)
    """
    if num_replications < 1 or num_draws < 1:
        raise ValueError(
            "num_replications and num_draws must be at least 1, got "
            f"{num_replications} and {num_draws}"
        )
    sites = program.sites()
    latent = [name for name, site in sites.items() if site.role == "latent"]
    observed = [
        name for name, site in sites.items() if site.role == "observed" and 0 not in site.shape
    ]

    def replicate(key: Array) -> tuple[dict[str, Array], Array]:
        key_data, key_run, key_draws, key_ties = random.split(key, 4)
        truth = generate(key_data, program, {})
        data = {name: truth[name] for name in observed if name in truth}
        simulated = program.observing(data)
        posterior = infer(key_run, simulated, algorithm, throw=False)
        draws = draws_of(key_draws, posterior, latent, num_draws)
        # A filter holds the last step of a series only: its ranks would be of something else.
        draws = {n: x for n, x in draws.items() if x.shape[1:] == sites[n].shape}
        truth = {name: truth[name] for name in draws}
        quantities = [quantity(simulated, truth, latent)]
        below = jax.vmap(lambda draw: quantity(simulated, draw, latent))(draws)
        ranks = jax.tree.map(lambda t, d: rank(key_ties, t, d), quantities[0], below)
        return ranks, posterior.info["status"]

    keys = random.split(key, num_replications)
    run = jax.jit(lambda keys: jax.lax.map(replicate, keys, batch_size=batch_size))
    ranks, status = run(keys)
    return Calibration(
        ranks=_scalars({name: np.asarray(x) for name, x in ranks.items()}),
        num_draws=num_draws,
        num_failed=int(np.sum(np.asarray(status) != 0)),
    )


def draws_of(
    key: Array, posterior: Posterior, latent: list[str], num_draws: int
) -> dict[str, Array]:
    """L draws by site name: drawn by weight, or evenly spaced from chains; consumes `key`."""
    if posterior.num_chains is None:
        rows = random.categorical(key, posterior.log_weights, shape=(num_draws,))
        flat = posterior.particles
    else:
        size = posterior.log_weights.size
        if size < num_draws:
            raise ValueError(f"{num_draws} draws were asked of chains with {size} in all")
        rows = (jnp.arange(num_draws) + 1) * size // num_draws - 1
        flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), posterior.particles)
    return {name: flat[name][rows] for name in latent if name in flat}


def quantity(program: Program, values: dict[str, Array], latent: list[str]) -> dict[str, Array]:
    """The values themselves, and the log-likelihood if they are complete."""
    if set(latent) - set(values):
        return values
    log_probs, _ = compute_log_probs(program, (), {}, values)
    terms = [jnp.asarray(x) for name, x in log_probs.items() if name not in values]
    return {**values, LOG_LIKELIHOOD: sum(terms, start=jnp.zeros(()))}


def rank(key: Array, truth: Shaped[Array, "..."], draws: Shaped[Array, "L ..."]) -> Array:
    """How many draws lie below the truth, ties broken at random; consumes `key`."""
    below = jnp.sum(draws < truth[None], axis=0)
    ties = jnp.sum(draws == truth[None], axis=0)
    share = random.uniform(key, truth.shape)
    return below + jnp.floor(share * (ties + 1)).astype(below.dtype)


def _scalars(ranks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Array-valued quantities as one entry for each element, such as `b[0]`."""
    found = {}
    for name, values in ranks.items():
        for index in np.ndindex(values.shape[1:]):
            label = name + (str(list(index)) if index else "")
            found[label] = values[(slice(None), *index)]
    return found
