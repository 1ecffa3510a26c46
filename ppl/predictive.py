"""Draws of data: from the prior, from a posterior, and beyond the end of a series.

One run of a bound program in which latent sites take given values where there are any and are drawn
otherwise, and observed sites are drawn instead of observed. Works for programs with and without a
scan, and for discrete sites. Missing observations (NaN) stay missing.

Shape letters: T steps of the scan.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, PyTree
from numpyro.primitives import Messenger

from jurax.ppl import random
from jurax.ppl.effects import Interpreter, Scan, Sites, draw
from jurax.ppl.posterior import Posterior
from jurax.ppl.program import Program


def prior_predictive(key: Array, program: Program, n: int) -> dict[str, Array]:
    """Draw every site from the prior, `n` times; consumes `key`.

    Args:
        key: consumed.
        program: a bound program; of its data only the shapes and the missing values matter.
        n: number of draws.

    Returns:
        Values by site name with a leading axis of n: latent, deterministic and observed sites,
        those of a scan stacked over time.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(3.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0).expand(y.shape), obs=y)
        >>> draws = prior_predictive(jax.random.key(0), bind(model, jnp.zeros(2)), 1000)
        >>> draws["y"].shape, bool(abs(draws["y"].mean() - 3) < 0.2)
        ((1000, 2), True)
    """
    _check_number(n)
    return jax.vmap(lambda lane: generate(key, program, {}, lane))(jnp.arange(n))


def posterior_predictive(
    key: Array, program: Program, posterior: Posterior, n: int | None = None
) -> dict[str, Array]:
    """Draw the observed sites given latent sites from a posterior; consumes `key`.

    A program whose data are longer than those of the posterior is *forecast*: sites of its scan
    take the posterior's values as far as these go and are drawn afterwards. Give it NaN for the
    observations to come (or anything: observed values do not matter here).

    Args:
        key: consumed.
        program: the program that the posterior is of, or the same with a longer scan.
        posterior: draws by site name. Weighted particles are resampled.
        n: number of draws; None: as many as the posterior has, chains one after the other.

    Returns:
        Values by site name with a leading axis of draws.

    Raises:
        ValueError: if the particles are not named sites of the program.
    """
    names = {name for name, site in program.sites().items() if site.role == "latent"}
    values = _stacked(posterior)
    known = {} if not isinstance(values, dict) else {k: v for k, v in values.items() if k in names}
    if not known:
        raise ValueError(
            f"this posterior holds no latent site of the program; these are {sorted(names)}"
        )
    key_rows, key_draws = random.split(key)
    num = posterior.log_weights.size if n is None else n
    _check_number(num)
    if n is not None or posterior.num_chains is None:
        log_weights = posterior.log_weights.reshape(-1)
        rows = random.categorical(key_rows, log_weights, shape=(num,))
        known = {name: value[rows] for name, value in known.items()}
    draw_one = lambda given, lane: generate(key_draws, program, given, lane)  # noqa: E731
    return jax.vmap(draw_one)(known, jnp.arange(num))


forecast = posterior_predictive


def _stacked(posterior: Posterior) -> PyTree:
    """Particles on one axis; whole trajectories where a history was kept."""
    if posterior.history is not None:
        return posterior.trajectories()
    depth = posterior.log_weights.ndim
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[depth:]), posterior.particles)


def generate(
    key: Array, program: Program, given: Mapping[str, Array], lane: Array | int = 0
) -> dict[str, Array]:
    """One run of the program; consumes `key`.

    Args:
        key: consumed.
        program: a bound program.
        given: values of latent sites; for sites of the scan stacked over its first steps.
        lane: of several runs mapped together with one key, which one; they draw in one batch.
    """
    run = _Run(key, dict(given), lane)
    interpreter = Interpreter(run.choose, run.at_scan)
    run.interpreter = interpreter
    observed = _Unobserved()
    run.observed = observed
    with interpreter, observed:
        program()
    values = dict(run.stacked)
    for sites in (interpreter.stretches[0], interpreter.stretches[-1]):
        values |= sites.latent | sites.deterministic
    return {name: _keep_missing(value, observed.values.get(name)) for name, value in values.items()}


class _Unobserved(Messenger):
    """Turns observed sites into sites that are drawn; notes what was observed."""

    def __init__(self):
        super().__init__()
        self.values: dict[str, Any] = {}

    def process_message(self, msg: dict) -> None:
        """Forget the value of an observed site; factors are no data."""
        if msg["type"] != "sample" or msg["value"] is None or isinstance(msg["fn"], dist.Unit):
            return
        self.values[msg["name"]] = msg["value"]
        msg["value"], msg["is_observed"] = None, False


class _Run:
    """The state of one run: where values come from, and what the scan left behind."""

    interpreter: Interpreter
    observed: _Unobserved

    def __init__(self, key: Array, given: dict[str, Array], lane: Array | int):
        self.key, self.given, self.lane = key, given, lane
        self.stacked: dict[str, Array] = {}
        self.step: Array | None = None
        self._draw: Callable = draw(random.fold_in(key, 0), lane)

    def choose(self, name: str, law: dist.Distribution) -> Array:
        """The given value of a site, or a draw."""
        if name not in self.given:
            return self._draw(name, law)
        value = self.given[name]
        if self.step is None:
            return value
        drawn = self._draw(name, law)
        last = value.shape[0] - 1
        return jnp.where(self.step <= last, value[jnp.minimum(self.step, last)], drawn)

    def at_scan(self, scan: Scan) -> tuple[Any, Any]:
        """Run all steps, one after the other, in a compiled loop."""

        def body(carry: Any, index: Array) -> tuple[Any, tuple]:
            self.step = index
            self._draw = draw(random.fold_in(self.key, index + 2), self.lane)
            self.interpreter.stretches[-1] = sites = Sites()
            carry, output = scan.step(carry, index)
            values = sites.latent | sites.deterministic
            seen = {k: v for k, v in self.observed.values.items() if k in values}
            return carry, (output, values, seen)

        init = jax.tree.map(jnp.asarray, scan.init)
        carry, (outputs, values, seen) = jax.lax.scan(body, init, jnp.arange(scan.length))
        self.interpreter.stretches[-1] = Sites()
        self.observed.values |= seen
        self.stacked, self.step = values, None
        self._draw = draw(random.fold_in(self.key, 1), self.lane)
        return carry, outputs


def _keep_missing(value: Array, observed: Any) -> Array:
    """The drawn value, NaN where the observation was."""
    if observed is None or not jnp.issubdtype(jnp.result_type(observed), jnp.floating):
        return value
    return jnp.where(jnp.isnan(observed), jnp.nan, value)


def _check_number(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of draws must be at least 1, got {n}")
