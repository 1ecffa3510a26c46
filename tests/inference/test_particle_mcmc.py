"""Particle Gibbs, PIMH, PMMH: laws by enumeration, toy languages, the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import (
    HMC,
    PIMH,
    PMMH,
    ConditionalFilter,
    ParticleFilter,
    ParticleGibbs,
    infer,
)
from jurax.inference.trajectory import Trajectory
from jurax.ppl import AbstractProcess, Cost, StateSpaceModel, laws
from jurax.ppl.walk import Walk
from tests.exact import Language, normalize, string_of
from tests.statistics import assert_mean

LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)
EQUAL = Language.draw(seed=3, num_symbols=2, depth=4, stop=False)  # 16 strings
VARIED = Language.draw(seed=3, num_symbols=2, depth=4, stop=True)  # 30 strings


# -------------------------------------------------------------------- laws


@pytest.mark.slow
def test_pimh_leaves_path_and_estimate_invariant(x64) -> None:
    """From the exact law of (path, Zhat), which conditional runs have, one step gives it again."""
    language = Language.draw(seed=7, num_symbols=2, depth=2, stop=False)
    process = language.process("odds")
    algorithm = PIMH(ParticleFilter(2, ess_threshold=0.9), num_samples=1)
    before = conditional_law(process, 0.9)
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


def conditional_law(process: AbstractProcess, threshold: float) -> dict:
    """Law of (path, Zhat): a path from the posterior, Zhat from a run in which it is pinned."""
    exact = laws.enumerate_process(process)
    kernel = ConditionalFilter(2, ess_threshold=threshold)

    def run(key, path):
        _, run, _ = kernel.draw(key, path, process)
        return path, run.population.log_evidence_estimate

    walk, found = Walk(run, jnp.zeros(process.num_steps + 1, jnp.int32)), {}
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


# -------------------------------------------------------------------- contract

ALGORITHMS = {
    "gibbs": lambda n: ParticleGibbs(4, n, ancestor_sampling="metropolis"),
    "pimh": lambda n: PIMH(ParticleFilter(4), n),
}


@pytest.mark.slow
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


def test_bars_and_checkpoints_are_refused_by_name(key, tmp_path) -> None:
    process = LANGUAGE.process("odds")
    for algorithm in (ParticleGibbs(4, 5), PIMH(ParticleFilter(4), 5), PMMH(ParticleFilter(4), 5)):
        name = type(algorithm).__name__
        with pytest.raises(ValueError, match=f"{name} runs as one .* split into calls"):
            infer(key, process, algorithm, progress=True)
        with pytest.raises(ValueError, match=f"{name} runs as one .* split into calls"):
            infer(key, process, algorithm, checkpoint=tmp_path / "state.npz")
