"""`tilt` and `temper` against exact enumeration by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jurax.inference import ParticleFilter, infer
from jurax.ppl import AbstractProcess, random, temper, tilt

START, MOVE, POTENTIAL = (
    np.array([0.3, 0.7]),
    np.array([[0.8, 0.2], [0.4, 0.6]]),
    np.array([0.5, 2.0]),
)
PSI = np.array([[0.2, 1.5], [1.0, 0.7], [3.0, 0.4]])  # by time and state


class Chain(AbstractProcess):
    """Two states, three times; absorbed when it comes from 0 to 1 if `absorbing`."""

    absorbing: bool = False
    num_steps: int = 2
    target: str = "chain"

    def init(self, key, num_particles):
        state = random.categorical(key, jnp.log(START), shape=(num_particles,))
        path = jnp.full((num_particles, 3), -1).at[:, 0].set(state)
        return path, jnp.log(POTENTIAL)[state]

    def extend(self, key, particles, t):
        last = particles[:, t - 1]
        state = random.categorical(key, jnp.log(MOVE)[last])
        return particles.at[:, t].set(state), jnp.log(POTENTIAL)[state]

    def finished(self, particles):
        return self.absorbing & (particles[:, 1] == 1) & (particles[:, 0] == 0)


def exact(absorbing: bool, how: str, strength: float, beta: float = 1.0) -> dict:
    """Mass of every path."""
    mass = {}
    for path in itertools.product([0, 1], repeat=3):
        end = 2 if absorbing and path[:2] == (0, 1) else 3
        w = START[path[0]] * POTENTIAL[path[0]] ** beta
        for a, b in itertools.pairwise(path[:end]):
            w *= MOVE[a, b] * POTENTIAL[b] ** beta
        psi = [PSI[t, path[t]] for t in range(end)]
        w *= {"product": np.prod(psi), "ratio": psi[-1], "final": psi[-1], "none": 1.0}[
            how
        ] ** strength
        mass[path[:end] + (-1,) * (3 - end)] = w
    return mass


def psi(particles: Array, t: Array | int) -> Float[Array, " N"]:
    return jnp.log(jnp.asarray(PSI))[t, particles[:, t]]


def check(process: AbstractProcess, mass: dict) -> None:
    """Evidence and every path within 4.5 standard errors (sampling error of independent runs)."""
    keys = jax.random.split(jax.random.key(0), 4000)

    def run(key):
        posterior = ParticleFilter(8, ess_threshold=0.8, history=False).run(key, process)
        code = posterior.particles @ jnp.array([16, 4, 1])
        weight = jnp.exp(posterior.log_evidence) * posterior.normalized()
        wanted = jnp.array([np.dot(path, [16, 4, 1]) for path in mass])
        return jnp.sum(weight[None] * (code[None] == wanted[:, None]), axis=1)

    estimates = np.asarray(jax.jit(lambda k: jax.lax.map(run, k, batch_size=500))(keys))
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(keys))
    z = (estimates.mean(axis=0) - np.array(list(mass.values()))) / error
    assert np.abs(z).max() < 4.5, z


@pytest.mark.slow
@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("how", ["product", "ratio", "final"])
def test_tilted_measure_is_unbiased_for_every_path(how, absorbing):
    process = tilt(Chain(absorbing=absorbing), psi, strength=0.7, how=how)
    check(process, exact(absorbing, how, 0.7))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_tempered_measure_is_unbiased_for_every_path(beta):
    check(temper(Chain(), beta), exact(False, "none", 1.0, beta))


def test_tempering_keeps_hard_constraints():
    increments = temper(Chain(), 0.5)
    assert float(jnp.max(increments.init(jax.random.key(0), 4)[1])) < np.inf
    with pytest.raises(ValueError, match="how must be"):
        tilt(Chain(), psi, how="sum")


def test_targets_name_what_was_done():
    assert "beta" in temper(Chain(), 0.5).target
    assert "psi_T" in tilt(Chain(), psi, how="final").target


def test_a_tilted_process_runs_under_infer():
    posterior = infer(jax.random.key(0), tilt(Chain(), psi), ParticleFilter(16))
    assert posterior.particles.shape == (16, 3)
