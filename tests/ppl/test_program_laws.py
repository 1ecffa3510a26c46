"""Finite programs and state-space models, enumerated exactly."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from jurax.inference import ParticleFilter
from jurax.models.state_space import HiddenMarkovModel
from jurax.ppl import laws, sequential


def forms(model):
    return {"process": model, "program": sequential(model.program())}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["process", "program"])
def test_paths_of_a_hidden_markov_model(form, x64, key):
    model = HiddenMarkovModel.simulate(key, num_steps=3, num_states=2)
    exact = laws.enumerate_process(forms(model)[form])
    answer = model.smoothed()
    np.testing.assert_allclose(exact.log_evidence, answer.log_evidence, rtol=1e-12)
    assert len(exact.paths) == 2**4
    paths = [t if form == "process" else t["z"] for t in exact.trajectories]
    marginals = np.einsum("p,ptk->tk", exact.probabilities, np.eye(2)[np.stack(paths)])
    np.testing.assert_allclose(marginals, answer.smoothed, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["process", "program"])
def test_filter_is_unbiased_for_every_path(form, key):
    model = HiddenMarkovModel.simulate(key, num_steps=2, num_states=2, num_symbols=2)
    algorithm = ParticleFilter(num_particles=2, ess_threshold=1.0)
    report = laws.check_unbiased(algorithm, forms(model)[form])
    assert report, str(report)


def mixed_sites(y):
    """Categorical and Bernoulli sites, a plate, a parameter and a real carry."""
    kind = numpyro.sample("kind", dist.Categorical(probs=jnp.array([0.3, 0.7])))

    def step(level, y_t):
        with numpyro.plate("pair", 2):
            z = numpyro.sample("z", dist.Bernoulli(jnp.where(kind == 1, 0.9, 0.2)))
        level = 0.5 * level + z.sum()
        numpyro.sample("y", dist.Normal(level, 1.0), obs=y_t)
        return level, None

    scan(step, 0.3, y)


def test_evidence_of_a_program_with_a_discrete_parameter(x64):
    y = np.array([0.3, 1.1])
    exact = laws.enumerate_process(sequential(mixed_sites, jnp.asarray(y)))
    total = 0.0
    for prior, p in ((0.3, 0.2), (0.7, 0.9)):
        for bits in np.ndindex(2, 2, 2, 2):
            z = np.array(bits).reshape(2, 2)
            mass, level = prior * np.prod(np.where(z == 1, p, 1 - p)), 0.3
            for t in range(2):
                level = 0.5 * level + z[t].sum()
                mass *= np.exp(-0.5 * (y[t] - level) ** 2) / np.sqrt(2 * np.pi)
            total += mass
    np.testing.assert_allclose(exact.log_evidence, np.log(total), rtol=1e-12)


def test_continuous_programs_are_refused(key):
    def program(y):
        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
            return x, None

        scan(step, 0.0, y)

    with pytest.raises(ValueError, match="Normal has infinitely many outcomes"):
        laws.enumerate_process(sequential(program, jnp.zeros(2)))
