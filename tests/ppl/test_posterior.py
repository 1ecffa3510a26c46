"""Posteriors: read-outs, genealogy, standard errors, files."""

import json

import arviz
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import ParticleFilter, diagnostics, infer
from jurax.ppl import Cost, History, Posterior
from jurax.ppl.population import DEAD, OK
from jurax.ppl.posterior import summarize
from tests.exact import Language, normalize, string_of
from tests.statistics import assert_mean


def posterior_of(values, log_weights, **fields) -> Posterior:
    info = {"status": jnp.array(OK), "num_steps": jnp.array(2)}
    return Posterior(
        particles=jnp.asarray(values),
        log_weights=jnp.asarray(log_weights, float),
        log_evidence=jnp.array(-0.5),
        info={**info, **fields.pop("info", {})},
        cost=Cost(),
        target="a test",
        **fields,
    )


# -------------------------------------------------------------------- read-outs


def test_distribution_of_independent_particles_by_hand() -> None:
    posterior = posterior_of([0, 1, 1, 2], np.log([0.1, 0.2, 0.3, 0.4]))
    law = posterior.distribution(lambda x: x % 2)
    assert law.values == [1, 0]
    np.testing.assert_allclose(law.probabilities, [0.5, 0.5], rtol=1e-6)
    # sum_i W_i^2 (1{f = v} - P)^2 = .25 (.01 + .04 + .09 + .16)
    np.testing.assert_allclose(law.standard_errors, np.sqrt([0.075, 0.075]), rtol=1e-6)
    assert str(law).splitlines()[0] == "1: 0.500 +- 0.274"


def test_errors_grow_with_families_by_hand() -> None:
    # Slots 0, 1 and slots 2, 3 have a common parent in the last generation.
    ancestors = jnp.array([[0, 0, 2, 2]])
    posterior = posterior_of([0, 0, 1, 1], np.zeros(4), info={"ancestors": ancestors})
    law = posterior.distribution(lambda x: x)
    # Two families with deviations +-.25 each for either value: SE^2 = 2 (.25)^2.
    np.testing.assert_allclose(law.standard_errors, np.sqrt([0.125, 0.125]), rtol=1e-6)


def test_read_outs_may_be_any_hashable_value() -> None:
    posterior = posterior_of([[0, 1], [0, 1], [2, 3]], np.log([0.3, 0.3, 0.4]))
    assert set(posterior.distribution(lambda x: x).values) == {(0, 1), (2, 3)}
    texts = posterior.distribution(lambda x: "yes" if x[0] == 0 else None)
    assert set(texts.values) == {"yes", None}
    assert posterior.distribution(lambda x: x[0] > 1).values == [False, True]


def test_values_of_weight_zero_do_not_appear() -> None:
    law = posterior_of([0, 1], [0.0, -np.inf]).distribution(lambda x: x)
    assert law.values == [0] and law.probabilities.tolist() == [1.0]


def test_a_dead_population_has_an_empty_distribution_and_draws_nothing(key: Array) -> None:
    dead = posterior_of([0, 1], [-np.inf, -np.inf], info={"status": jnp.array(DEAD)})
    law = dead.distribution(lambda x: x)
    assert law.values == [] and law.probabilities.shape == (0,)
    assert "dead" in str(dead.status) and float(dead.ess) == 0.0
    for draw in (lambda: dead.sample(key, 2), dead.to_arviz):
        with pytest.raises(ValueError, match="every weight is zero"):
            draw()


def test_expectation_and_sample_use_the_weights(key: Array) -> None:
    posterior = posterior_of([1.0, 2.0], np.log([0.25, 0.75]))
    assert float(posterior.expectation(lambda x: x**2)) == pytest.approx(3.25)
    assert_mean(posterior.sample(key, 4000), 1.75, resolution=0.015)


def test_packed_problems_are_taken_apart() -> None:
    packed = Posterior(
        particles=jnp.arange(6).reshape(2, 3),
        log_weights=jnp.zeros((2, 3)),
        log_evidence=jnp.array([0.0, -jnp.inf]),
        info={"status": jnp.array([OK, DEAD])},
        cost=Cost(decoded_tokens=jnp.array([3, 4])),
    )
    assert len(packed) == 2 and packed[1].particles.tolist() == [3, 4, 5]
    assert packed[1].cost.decoded_tokens == 4 and packed.status[1].startswith("dead")
    for method in ("distribution", "sample", "trajectories", "to_arviz"):
        arguments = {"distribution": (lambda x: x,), "sample": (jax.random.key(0), 1)}
        with pytest.raises(ValueError, match=r"posterior\[i\]"):
            getattr(packed, method)(*arguments.get(method, ()))
    with pytest.raises(IndexError):
        packed[0][0]
    assert len(list(packed)) == 2
    assert packed[-1].particles.tolist() == [3, 4, 5]
    with pytest.raises(IndexError, match="holds 2 problems, got index 2"):
        packed[2]


def test_text_in_notebooks_is_escaped() -> None:
    posterior = posterior_of([0.0], [0.0])
    posterior = eqx.tree_at(lambda p: p.log_evidence, posterior, jnp.array(1.0))
    object.__setattr__(posterior, "target", "p(x) <script>")
    assert "<script>" not in posterior._repr_html_() and "log evidence" in posterior._repr_html_()
    assert "1 particles" in repr(posterior)


# -------------------------------------------------------------------- genealogy


def test_trajectories_of_a_known_genealogy() -> None:
    records = jnp.array([[10, 11, 12], [20, 21, 22], [30, 31, 32], [0, 0, 0]])
    ancestors = jnp.array([[0, 0, 2], [2, 1, 1], [0, 1, 2]])  # the last step was not made
    history = History(records={"x": records}, ancestors=ancestors)
    traced = posterior_of([0, 1, 2], np.zeros(3), history=history).trajectories()["x"]
    assert traced.tolist() == [[12, 22, 30], [10, 21, 31], [10, 21, 32]]


def test_without_resampling_every_slot_is_its_own_lineage() -> None:
    history = History(records=jnp.arange(6).reshape(3, 2), ancestors=None)
    posterior = posterior_of([0, 1], np.zeros(2), history=history)
    assert posterior.trajectories().tolist() == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(ValueError, match="history=True"):
        posterior_of([0, 1], np.zeros(2)).trajectories()


def test_unique_ancestors_are_counted() -> None:
    ancestors = jnp.array([[0, 0, 2], [2, 1, 1]])
    posterior = posterior_of([0, 1, 2], np.zeros(3), info={"ancestors": ancestors})
    assert diagnostics.unique_ancestors(posterior).tolist() == [2, 2, 3]


# -------------------------------------------------------------------- standard errors


@pytest.mark.slow
def test_standard_errors_are_those_of_replicates(seed: int) -> None:
    """At N = 1,000 the reported error is the spread of independent runs, within a factor 1.6."""
    language = Language.draw(seed=7, num_symbols=2, depth=4, stop=True)
    process = language.process("odds")
    algorithm = ParticleFilter(num_particles=1000, ess_threshold=0.8)
    exact = normalize(language.masses("odds"))
    first = {symbol: sum(p for s, p in exact.items() if s[0] == symbol) for symbol in (0, 1)}
    likely = max(exact, key=lambda s: exact[s])
    strings = [string_of(number, 3) for number in range(process.num_prefixes)]
    read_outs = {
        "first": (lambda number: strings[number][0], 0),
        "string": (lambda number: strings[number], likely),
    }
    estimates: dict = {name: [] for name in read_outs}
    errors: dict = {name: [] for name in read_outs}
    for key in jax.random.split(jax.random.key(seed), 60):
        posterior = prefixes(infer(key, process, algorithm))
        for name, (f, value) in read_outs.items():
            law = posterior.distribution(f)
            at = law.values.index(value)
            estimates[name].append(law.probabilities[at])
            errors[name].append(law.standard_errors[at])
    for name, expected in (("first", first[0]), ("string", exact[likely])):
        # 60 replicates know their spread to 9 %; the estimator itself is not exact for schemes
        # other than multinomial (it is too large for stratified ones).
        spread = np.std(estimates[name], ddof=1)
        assert 1 / 1.3 < np.mean(errors[name]) / spread < 1.6, name
        assert_mean(estimates[name], expected, resolution=0.015)


# -------------------------------------------------------------------- files


@pytest.fixture
def fitted() -> Posterior:
    process = Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")
    return infer(jax.random.key(0), process, ParticleFilter(num_particles=16, history=True))


def test_a_file_gives_back_the_posterior(tmp_path, fitted: Posterior) -> None:
    path = tmp_path / "new folder" / "posterior.npz"
    fitted.save(path)
    loaded = Posterior.load(path)
    assert [p.name for p in path.parent.iterdir()] == ["posterior.npz"]
    assert loaded.target == fitted.target
    for name in ("log_weights", "log_evidence", "info"):
        expected = jax.tree.leaves(getattr(fitted, name))
        found = jax.tree.leaves(getattr(loaded, name))
        jax.tree.map(np.testing.assert_array_equal, expected, found)
    np.testing.assert_array_equal(loaded.particles["prefix"], fitted.particles.prefix)
    np.testing.assert_array_equal(loaded.trajectories(), fitted.trajectories())
    assert float(loaded.cost.decoded_tokens) == float(fitted.cost.decoded_tokens)
    law, again = (p.distribution(lambda x: x) for p in map(prefixes, (fitted, loaded)))
    assert law.values == again.values
    np.testing.assert_array_equal(law.standard_errors, again.standard_errors)


def prefixes(posterior: Posterior) -> Posterior:
    """The same posterior with bare numbers as particles."""
    particles = posterior.particles
    bare = particles["prefix"] if isinstance(particles, dict) else particles.prefix
    return eqx.tree_at(lambda p: p.particles, posterior, bare)


def test_bare_and_nested_particles_come_back(tmp_path) -> None:
    for values in (jnp.arange(3.0), {"a": {"b": jnp.arange(3), "c": jnp.ones((3, 2), bool)}}):
        posterior = posterior_of([0, 1, 2], np.zeros(3))
        posterior = eqx.tree_at(lambda p: p.particles, posterior, values)
        posterior.save(tmp_path / "x.npz")
        loaded = Posterior.load(tmp_path / "x.npz").particles
        assert jax.tree.structure(loaded) == jax.tree.structure(values)
        assert [x.dtype for x in jax.tree.leaves(loaded)] == [
            x.dtype for x in jax.tree.leaves(values)
        ]


def test_names_with_slashes_and_half_precision_come_back(tmp_path) -> None:
    values = {"a/b": jnp.arange(3.0), "50 %2F": jnp.ones((3, 2), jnp.bfloat16)}
    posterior = eqx.tree_at(lambda p: p.particles, posterior_of([0, 1, 2], np.zeros(3)), values)
    posterior.save(tmp_path / "x.npz")
    loaded = Posterior.load(tmp_path / "x.npz").particles
    assert set(loaded) == set(values) and loaded["50 %2F"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, loaded, values)
    assert set(posterior.to_arviz().posterior.data_vars) == set(values)


def damaged_files(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "half": good[: len(good) // 2],
        "flipped": good[:200] + bytes([good[200] ^ 255]) + good[201:],
        "text": b"not an archive",
    }


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text"])
def test_damaged_files_are_refused(damage: str, tmp_path, fitted: Posterior) -> None:
    path = tmp_path / "x.npz"
    fitted.save(path)
    path.write_bytes(damaged_files(path.read_bytes())[damage])
    with pytest.raises(ValueError, match="is not a posterior written by"):
        Posterior.load(path)


def test_files_of_another_kind_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="is not a posterior"):
        Posterior.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", header=np.array(json.dumps({"format": "jurax-posterior-99"})))
    with pytest.raises(ValueError, match="jurax-posterior-99"):
        Posterior.load(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="missing.npz"):
        Posterior.load(tmp_path / "missing.npz")
    np.save(tmp_path / "c.npy", np.ones(3))
    with pytest.raises(ValueError, match="is not a posterior"):
        Posterior.load(tmp_path / "c.npy")
    np.savez(tmp_path / "d.npz", header=np.array("[1]"))
    with pytest.raises(ValueError, match="has format None"):
        Posterior.load(tmp_path / "d.npz")
    header = np.array(json.dumps({"format": "jurax-posterior-1", "target": "x"}))
    np.savez(tmp_path / "e.npz", header=header)
    with pytest.raises(ValueError, match="lacks .'log_evidence', 'log_weights'"):
        Posterior.load(tmp_path / "e.npz")


def test_a_single_particle_knows_nothing_of_its_error() -> None:
    for log_weights in ([0.0], [0.0, -np.inf]):
        law = posterior_of([0.5, 1.5][: len(log_weights)], log_weights).distribution(float)
        assert np.isnan(law.standard_errors).all() and str(law) == "0.5: 1.000 +- ?"


def test_arviz_has_the_weight_of_each_draw_beside_it() -> None:
    weights = np.log([0.1, 0.2, 0.7])
    data = posterior_of([0.0, 1.0, 2.0], weights).to_arviz()
    draws = data.posterior["x"].values.astype(int)
    np.testing.assert_allclose(data.sample_stats["log_weights"], weights[draws], rtol=1e-6)


def test_arviz_gets_draws_with_the_law_of_the_weights(fitted: Posterior) -> None:
    data = fitted.to_arviz()
    draws = data.posterior["x"]
    assert draws.shape == (1, 16, 3) and draws.dims[:2] == ("chain", "draw")
    assert data.posterior.attrs["target"] == fitted.target
    assert data.posterior.attrs["log_evidence"] == pytest.approx(float(fitted.log_evidence))
    weight = posterior_of(np.arange(2000.0), np.linspace(-3, 0, 2000))
    mean = float(arviz.summary(weight.to_arviz(key=jax.random.key(1)))["mean"].iloc[0])
    expected = float(weight.expectation(lambda x: x))
    assert mean == pytest.approx(expected, abs=60)  # sd of the mean of 2,000 draws is 12


@pytest.mark.parametrize("num_particles", [3, 47, 64, 1000])
def test_a_probability_never_exceeds_one(num_particles: int) -> None:
    """Float32 weights add up to a little more or less than 1."""
    weights = np.full(num_particles, np.float32((1 + 1e-7) / num_particles))
    families = np.arange(num_particles)[None]
    found = summarize(["a"] * num_particles, weights, families)
    assert 1 - 1e-12 <= found.probabilities[0] <= 1
    assert found.standard_errors[0] < 1e-7
