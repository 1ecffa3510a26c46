"""Particle Gibbs, PIMH, PMMH: laws on toy languages, joint laws of parameters and paths."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import (
    HMC,
    PIMH,
    PMMH,
    RWMH,
    ConditionalFilter,
    ParticleFilter,
    ParticleGibbs,
    infer,
    pmmh,
)
from jurax.inference.parameter_update import ParameterUpdate
from jurax.inference.particle_gibbs import GibbsCycle
from jurax.inference.trajectory import Trajectory
from jurax.ppl import AbstractProcess, Cost, StateSpaceModel, family, laws
from jurax.ppl.walk import Walk
from tests.exact import Language, PrefixProcess, normalize, string_of
from tests.inference.test_mutations import plant
from tests.statistics import assert_mean, mean_and_error, z_threshold

LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)
EQUAL = Language.draw(seed=3, num_symbols=2, depth=4, stop=False)  # 16 strings
VARIED = Language.draw(seed=3, num_symbols=2, depth=4, stop=True)  # 30 strings
STRENGTH = dist.Gamma(2.0, 1.0)


def strengths(language: Language = LANGUAGE):
    """The language under the power `strength` of its rewards."""
    process = language.process("emission")

    def at(values) -> PrefixProcess:
        powers = values["strength"] * process.log_potentials
        return eqx.tree_at(lambda p: p.log_potentials, process, powers)

    return family(at, {"strength": STRENGTH})


def grid_posterior(language: Language = LANGUAGE) -> tuple[np.ndarray, np.ndarray]:
    """Points and posterior probabilities of the strength, from sums over all strings."""
    points = np.linspace(1e-3, 16.0, 4000)
    evidence = np.array([sum(language.masses("emission", float(s)).values()) for s in points])
    density = evidence * np.exp(np.asarray(STRENGTH.log_prob(jnp.asarray(points))))
    return points, density / density.sum()


# -------------------------------------------------------------------- laws


def test_pimh_leaves_path_and_estimate_invariant(x64) -> None:
    """From the exact law of (path, Zhat), which conditional runs have, one step gives it again."""
    language = Language.draw(seed=7, num_symbols=2, depth=2, stop=False)
    process = language.process("odds")
    algorithm = PIMH(ParticleFilter(2, ess_threshold=0.9), num_samples=1)
    before = conditional_law(process)
    after: dict = {}
    state = state_of(process, (0, 0), 0.0)
    walk = Walk(lambda key, s: outcome(algorithm.step(key, s, process)[0]), state)
    for (path, log_evidence), mass in before.items():

        def visit(probability, end, mass=mass):
            atom = atom_of(end)
            after[atom] = after.get(atom, 0.0) + mass * probability

        walk.run(visit, state_of(process, path, log_evidence))
    assert walk.key_fault is None and len(before) > 8
    for atom in {**before, **after}:
        assert abs(before.get(atom, 0.0) - after.get(atom, 0.0)) < 1e-10, atom


def conditional_law(process: AbstractProcess) -> dict:
    """Law of (path, Zhat): a path from the posterior, Zhat from a run in which it is pinned."""
    exact = laws.enumerate_process(process)
    kernel = ConditionalFilter(2, ess_threshold=0.9)

    def run(key, path):
        _, run, _ = kernel.draw(key, path, process)
        return path, run.population.log_evidence_estimate

    walk, found = Walk(run, jnp.zeros(2, jnp.int32)), {}
    for path, mass in zip(exact.paths, exact.probabilities, strict=True):

        def visit(probability, end, mass=mass):
            atom = atom_of(end)
            found[atom] = found.get(atom, 0.0) + float(mass) * probability

        walk.run(visit, jnp.array(path, jnp.int32))
    return found


def state_of(process: AbstractProcess, path: tuple, log_evidence: float) -> Trajectory:
    particles, _ = process.init(jax.random.key(0), 1)
    return Trajectory(
        path=jnp.array(path, jnp.int32),
        particle=jax.tree.map(lambda x: x[0], process.output(particles)),
        log_evidence=jnp.asarray(log_evidence),
        status=jnp.zeros((), jnp.int32),
        cost=jax.tree.map(jnp.asarray, process.cost(None, particles)),
    )


def outcome(state: Trajectory) -> tuple:
    return state.path, state.log_evidence


def atom_of(end: tuple) -> tuple:
    return tuple(np.asarray(end[0]).tolist()), round(float(end[1]), 9)


def exact_starts(key, language: Language, num: int):
    """Paths drawn from the exact posterior, `(num, T + 1)`, padded with zeros."""
    law = normalize(language.masses("odds"))
    strings = list(law)
    table = np.zeros((len(strings), language.depth), np.int32)
    for i, string in enumerate(strings):
        table[i, : len(string)] = string
    index = jax.random.categorical(key, jnp.log(jnp.array(list(law.values()))), shape=(num,))
    return jnp.asarray(table)[index], table, np.array(list(law.values()))


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, "metropolis"])
@pytest.mark.parametrize("language", [EQUAL, VARIED], ids=["equal", "varied"])
def test_gibbs_with_four_particles_samples_the_language(language, moves, key) -> None:
    """400,000 sweeps in 400 chains: total variation at most .02."""
    process = language.process("odds")
    kernel = ConditionalFilter(4, ancestor_sampling=moves)
    key_start, key_sweeps = jax.random.split(key)
    starts, table, expected = exact_starts(key_start, language, 400)
    codes = jnp.asarray(table)

    @jax.jit
    def chains(keys, starts):
        def sweep(path, key):
            path = kernel.sweep(key, path, process)
            return path, jnp.argmax(jnp.all(codes == path[None], axis=1))

        def chain(key, path):
            found = jax.lax.scan(sweep, path, jax.random.split(key, 1000))[1]
            return jnp.zeros(len(table)).at[found].add(1.0)

        return jax.vmap(chain)(keys, starts)

    counts = np.asarray(chains(jax.random.split(key_sweeps, 400), starts))
    assert counts.sum() == 400_000
    frequencies = counts / 1000
    assert 0.5 * np.abs(frequencies.mean(axis=0) - expected).sum() <= 0.02
    assert_mean(frequencies, expected)


@pytest.mark.slow
def test_pmmh_over_the_reward_strength_agrees_with_the_grid(key) -> None:
    """Zhat of 20 particles is noisy; the posterior is exact all the same."""
    posterior = strength_draws(key, 20)
    points, probabilities = grid_posterior()
    draws = np.asarray(posterior.particles["strength"], np.float64)
    assert np.std(np.asarray(posterior.info["log_evidence"])) > 0.1
    mean = (points * probabilities).sum()
    assert_mean(draws.mean(axis=1), mean, resolution=0.05 * mean)
    cumulative = probabilities.cumsum()
    for quantile in (0.05, 0.5, 0.95):
        point = points[np.searchsorted(cumulative, quantile)]
        exact = cumulative[np.searchsorted(points, point)]
        assert_mean((draws <= point).mean(axis=1), exact, resolution=0.02)


@pytest.mark.slow
def test_pmmh_that_refreshes_its_estimate_is_wrong(key, monkeypatch) -> None:
    plant(
        monkeypatch,
        pmmh.PMMH,
        "step",
        "log_posterior(proposed) - log_posterior(state)",
        "log_posterior(proposed) - log_posterior("
        "self.draw_at(random.fold_in(key_filter, 1), state.x, process, view))",
    )
    points, probabilities = grid_posterior()
    draws = np.asarray(strength_draws(key, 2).particles["strength"])
    mean, error = mean_and_error(draws.mean(axis=1))
    assert abs(mean - (points * probabilities).sum()) > z_threshold() * error


def strength_draws(key, num_particles: int):
    algorithm = PMMH(
        ParticleFilter(num_particles, ess_threshold=0.9),
        num_samples=1500,
        num_warmup=500,
        num_chains=200,
    )
    return infer(key, strengths(), algorithm)


# -------------------------------------------------------------------- the Gibbs cycle, jointly

SLOPE, PRIOR, STEP, NOISE, LAST = 0.5, 1.0, 0.5, 3.0, 2  # the path is free to move in one sweep


def walks(y):
    """x_0 ~ N(theta, 1), x_t ~ N(SLOPE x_{t-1} + theta, STEP), y_t ~ N(x_t, NOISE)."""

    def at(values) -> StateSpaceModel:
        theta = values["theta"]
        return StateSpaceModel(
            initial=dist.Normal(theta, 1.0),
            transition=lambda x, t: dist.Normal(SLOPE * x + theta, STEP),
            potential=lambda x, t: dist.Normal(x, NOISE).log_prob(y[t]),
            num_steps=LAST,
        )

    return family(at, {"theta": dist.Normal(0.0, PRIOR)})


def second_moments() -> np.ndarray:
    """E[v v'] of v = (theta, x_0, ..., x_T, y_0, ..., y_T) in closed form."""
    rows = [np.array([PRIOR, *np.zeros(2 * LAST + 2)])]
    x = rows[0] + np.eye(2 * LAST + 3)[1]
    rows.append(x)
    for t in range(1, LAST + 1):
        x = SLOPE * x + rows[0] + STEP * np.eye(2 * LAST + 3)[1 + t]
        rows.append(x)
    rows += [rows[1 + t] + NOISE * np.eye(2 * LAST + 3)[2 + LAST + t] for t in range(LAST + 1)]
    root = np.stack([row[: 2 * LAST + 3] for row in rows])
    return root @ root.T


def conjugate(key, values, path, process):
    """Theta given the path is normal here."""
    del values, process
    innovations = jnp.concatenate([path[:1], path[1:] - SLOPE * path[:-1]])
    precisions = jnp.array([1.0, *[STEP**-2] * LAST])
    precision = PRIOR**-2 + precisions.sum()
    mean = (precisions * innovations).sum() / precision
    return {"theta": mean + jax.random.normal(key) / jnp.sqrt(precision)}


def geweke_draws(key, kernel=conjugate, num_chains: int = 400, num_sweeps: int = 100) -> np.ndarray:
    """Means over chains of v v', each chain started from the joint law: cycle, then redraw of y."""
    gibbs = ConditionalFilter(10, ess_threshold=0.9, ancestor_sampling="exact")

    def chain(key):
        key_start, key_noise, key_sweeps = jax.random.split(key, 3)
        y = jnp.zeros(LAST + 1)
        update = ParameterUpdate(walks(y), kernel, 0)
        state = GibbsCycle(walks(y), gibbs, update).init(key_start)
        theta, x = joint_draw(key_noise)
        state = eqx.tree_at(
            lambda s: (s.parameters.values["theta"], s.trajectory.path), state, (theta, x)
        )
        if state.parameters.tuning is not None:
            state = eqx.tree_at(lambda s: s.parameters.x, state, theta[None])

        def sweep(state, key):
            key_y, key_cycle = jax.random.split(key)
            y = state.trajectory.path + NOISE * jax.random.normal(key_y, (LAST + 1,))
            process = walks(y)
            update = ParameterUpdate(process, kernel, 0)
            theta = state.parameters.values["theta"]
            v = jnp.concatenate([theta[None], state.trajectory.path, y])
            state, _ = GibbsCycle(process, gibbs, update).step(key_cycle, state)
            return state, jnp.outer(v, v)

        _, moments = jax.lax.scan(sweep, state, jax.random.split(key_sweeps, num_sweeps))
        return jnp.mean(moments, axis=0)

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(key, num_chains)))


def joint_draw(key):
    """(theta, x) of the model."""
    noise = jax.random.normal(key, (LAST + 2,))
    theta = PRIOR * noise[0]
    x = [theta + noise[1]]
    for t in range(1, LAST + 1):
        x.append(SLOPE * x[-1] + theta + STEP * noise[1 + t])
    return theta, jnp.stack(x)


def test_cycle_of_parameters_and_path_has_the_joint_law(key) -> None:
    """Geweke 2004: moments and cross moments of (theta, x, y)."""
    assert_mean(geweke_draws(key), second_moments())


@pytest.mark.slow
def test_cycle_with_a_metropolis_step_has_the_joint_law(key) -> None:
    assert_mean(geweke_draws(key, RWMH(1.0)), second_moments())


def test_a_stale_parameter_breaks_the_joint_law(key, monkeypatch) -> None:
    plant(
        monkeypatch,
        GibbsCycle,
        "step",
        "self.process_at(parameters)",
        "self.process_at(state.parameters)",
    )
    with pytest.raises(AssertionError, match="differs"):
        assert_mean(geweke_draws(key), second_moments())


def test_users_update_takes_the_place_of_a_kernel(key) -> None:
    y = jnp.array([1.0, 0.5, 2.0])
    gibbs = ParticleGibbs(10, 300, 20, 20, ancestor_sampling="exact", parameter_kernel=conjugate)
    posterior = infer(key, walks(y), gibbs)
    moments = second_moments()
    start = LAST + 2
    gain = moments[0, start:] @ np.linalg.inv(moments[start:, start:])
    draws = np.asarray(posterior.particles["theta"], np.float64)
    assert_mean(draws.mean(axis=1), gain @ np.asarray(y), resolution=0.05)


# -------------------------------------------------------------------- contract

ALGORITHMS = {
    "gibbs": lambda n: ParticleGibbs(4, n, ancestor_sampling="metropolis"),
    "pimh": lambda n: PIMH(ParticleFilter(4), n),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_jit_and_vmap_change_nothing_and_keys_are_consumed_once(name, key) -> None:
    process, algorithm = LANGUAGE.process("odds"), ALGORITHMS[name](6)
    keys = jax.random.split(key, 2)
    with jax.debug_key_reuse(True):  # not under vmap: there a conditional selects between keys
        alone = infer(jax.random.clone(keys[1]), process, algorithm)
    mapped = jax.jit(jax.vmap(lambda k: infer(k, process, algorithm)))(keys)
    np.testing.assert_array_equal(mapped.particles.prefix[1], alone.particles.prefix)
    assert alone.log_weights.shape == (1, 6) and not alone.log_weights.any()
    assert alone.trajectories().shape == (6, 3) and np.isnan(alone.log_evidence)
    assert alone.num_chains == 1 and alone.status == "ok"
    assert float(alone.cost.decoded_tokens) > 0
    assert alone.distribution(lambda p: string_of(int(p.prefix), 3)).probabilities.sum() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [None, HMC(num_leapfrogs=3)], ids=["default", "hmc"])
def test_gibbs_over_parameters_agrees_with_the_exact_posterior(kernel, key) -> None:
    y = jnp.array([1.0, 0.5, 2.0])
    gibbs = ParticleGibbs(10, 2000, 300, 50, ancestor_sampling="exact", parameter_kernel=kernel)
    posterior = infer(key, walks(y), gibbs)
    moments, start = second_moments(), LAST + 2
    gain = moments[:start, start:] @ np.linalg.inv(moments[start:, start:])
    exact = gain @ np.asarray(y)
    theta = np.asarray(posterior.particles["theta"], np.float64).mean(axis=1)
    paths = np.asarray(posterior.trajectories(), np.float64).reshape(50, 2000, -1).mean(axis=1)
    assert_mean(np.column_stack([theta, paths]), exact, resolution=0.02)


def test_packed_problems_run_together(key) -> None:
    from tests.inference.test_contract import Chase

    posterior = infer(key, Chase(jnp.array([0.0, 2.0])), ParticleGibbs(4, 5, num_chains=2))
    assert posterior.log_weights.shape == (2, 2, 5)
    assert posterior.particles["x"].shape == (2, 2, 5)
    assert posterior[0].trajectories()["x"].shape == (10, 5)


def test_bad_input_is_refused_by_name(key) -> None:
    plain = StateSpaceModel(
        initial=lambda k: jax.random.normal(k),
        transition=lambda k, x, t: x + jax.random.normal(k),
        potential=lambda x, t: -(x**2),
        num_steps=2,
    )
    with pytest.raises(NotImplementedError, match="replay"):
        infer(key, plain, ParticleGibbs(4, 5, ancestor_sampling="exact"))
    with pytest.raises(NotImplementedError, match="parameters"):
        infer(key, plain, PMMH(ParticleFilter(4), 5))
    with pytest.raises(NotImplementedError, match="budget"):
        infer(key, plain, ParticleGibbs(4, 5), budget=Cost())
    with pytest.raises(ValueError, match="ancestor_sampling"):
        ParticleGibbs(4, 5, ancestor_sampling="always")
    with pytest.raises(ValueError, match="num_samples"):
        PIMH(ParticleFilter(4), 0)
    with pytest.raises(TypeError, match="filter"):
        PMMH(ParticleGibbs(4, 5), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="propose"):
        PMMH(ParticleFilter(4), 5, proposal=HMC())
    with pytest.raises(TypeError, match="parameter_kernel"):
        ParticleGibbs(4, 5, parameter_kernel="rwmh")  # type: ignore[arg-type]
    assert infer(key, plain, ParticleGibbs(4, 5)).trajectories().shape == (5, 3)


@pytest.mark.slow
def test_gibbs_samples_texts_of_a_language_model_without_densities(key, monkeypatch) -> None:
    """A model that scores no steps: whole particles are stored. 64 chains from a filter's path."""
    from jurax.models.language.model import AbstractLanguageModel
    from tests.models.language.test_reasoning import toy
    from tests.models.language.toy import PrefixModel

    monkeypatch.setattr(PrefixModel, "score_step", AbstractLanguageModel.score_step)
    language = Language.draw(5, num_symbols=2, depth=3, stop=True)
    algorithm = ParticleGibbs(4, 500, 20, num_chains=64)
    posterior = infer(key, toy(language, "odds"), algorithm)
    tokens = np.asarray(posterior.particles["tokens"]).reshape(64, 500, -1)
    law = normalize(language.masses("odds"))
    table = np.zeros((len(law), language.depth), int)
    for i, string in enumerate(law):
        table[i, : len(string)] = np.array(string) + 1
    found = (tokens[:, :, None, :] == table).all(axis=-1)
    assert found.any(axis=-1).all()
    common = np.array(list(law.values())) > 0.01  # of others too few are seen for a normal mean
    expected = np.array(list(law.values()))[common]
    assert_mean(found.mean(axis=1)[:, common], expected, resolution=0.02)
