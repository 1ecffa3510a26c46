"""Planted faults: each is one changed fragment of a shipped kernel, and each breaks a named law.

A fault is planted by recompiling the shipped function from its own source with the fragment
replaced, so a kernel that changes makes the fault fail to apply instead of passing unnoticed.
The checks are those of `test_particle_filter` and `test_resampling`, which hold without a fault.
"""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import (
    Extend,
    ImportanceSampling,
    ParticleFilter,
    Resample,
    Residual,
    Stratified,
    Systematic,
    loop,
    sampler,
)
from jurax.inference import kernel as kernels
from jurax.inference.resampling import counting, stratified
from jurax.ppl import Population, genealogy, laws, random
from tests.exact import Language

pytestmark = pytest.mark.usefixtures("x64")


def plant(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fragment: str, fault: str
) -> None:
    """Replace the only occurrence of `fragment` in the source of `owner.name` by `fault`."""
    shipped = inspect.getattr_static(owner, name)
    is_property = isinstance(shipped, property)
    function = inspect.unwrap(shipped.fget if is_property else shipped)
    function = function.__func__ if isinstance(function, classmethod) else function
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    assert source.count(fragment) == 1, f"{fragment!r} occurs {source.count(fragment)} times"
    namespace = dict(inspect.unwrap(function).__globals__)
    exec(compile(source.replace(fragment, fault), f"<fault in {name}>", "exec"), namespace)
    monkeypatch.setattr(owner, name, namespace[name])


# -------------------------------------------------------------------- the laws that are watched

# Strings end after two or three symbols; the threshold fires in some replays and not in others.
LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)
FILTER = ParticleFilter(num_particles=2, resampler=Systematic(), ess_threshold=0.9)


def filter_law() -> laws.LawReport:
    return laws.check_unbiased(FILTER, LANGUAGE.process("odds"))


def importance_law() -> laws.LawReport:
    return laws.check_unbiased(ImportanceSampling(num_particles=2), LANGUAGE.process("odds"))


def three_weights() -> Population:
    process = LANGUAGE.process("odds")
    particles, _ = process.init(jax.random.key(0), 3)
    return Population.start(particles, jnp.log(jnp.array([0.2, 0.9, 0.35])))


def resampling_law(scheme: Callable) -> laws.LawReport:
    process = LANGUAGE.process("odds")
    rows, _ = process.init(jax.random.key(0), 3)
    rows = type(rows)(jnp.array([1, 2, 3]), rows.length, rows.symbol, rows.done)
    population = Population.start(rows, three_weights().log_weights)
    return laws.check_preserving(Resample(scheme), process, population)


def test_laws_hold_without_a_fault() -> None:
    reports = [filter_law(), importance_law()]
    reports += [resampling_law(scheme) for scheme in (Systematic(), Stratified(), Residual())]
    assert all(reports), [str(report) for report in reports if not report]
    assert min(reports[0].branches["resampled"]) > 20


def assert_broken(report: laws.LawReport, law: str, at_least: float = 1e-6) -> None:
    assert not report and report.law.startswith(law), str(report)
    assert report.max_error > at_least, str(report)


# -------------------------------------------------------------------- a reused key


class SameKey:
    """`jurax.ppl.random` with a `split` that hands out its argument."""

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)

    def split(self, key, num=2):
        return tuple(key for _ in range(num))


def test_key_shared_by_start_and_steps_breaks_the_law_of_keys(monkeypatch) -> None:
    """The fault of cuthbert 0.0.13 to 0.1.1: moments at each step do not show it."""
    monkeypatch.setattr(sampler, "random", SameKey())
    assert_broken(importance_law(), "keys")
    assert_broken(filter_law(), "keys")


def test_key_shared_by_resampling_and_extension_breaks_the_law_of_keys(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "random", SameKey())
    assert_broken(filter_law(), "keys")


def test_key_shared_by_all_steps_breaks_the_law_of_keys(monkeypatch) -> None:
    monkeypatch.setattr(loop, "step_key", lambda key, time: key)
    assert_broken(importance_law(), "keys")


# -------------------------------------------------------------------- a finished particle


def test_weighting_finished_particles_again_breaks_unbiasedness(monkeypatch) -> None:
    plant(monkeypatch, Extend, "step", "jnp.where(active, increments, 0.0)", "increments")
    assert_broken(importance_law(), "unbiased: ", 0.001)
    assert_broken(filter_law(), "unbiased: ", 0.001)


def test_moving_finished_particles_breaks_unbiasedness(monkeypatch) -> None:
    plant(monkeypatch, Extend, "step", "process.settle(active, particles, before)", "particles")
    assert_broken(importance_law(), "unbiased: ", 0.001)


# -------------------------------------------------------------------- a weight used twice


def test_weights_kept_after_resampling_break_preservation(monkeypatch) -> None:
    plant(
        monkeypatch,
        Resample,
        "step",
        "jnp.where(dead, -jnp.inf, 0.0)[..., None].astype(gained.dtype)",
        "population.log_weights",
    )
    assert_broken(resampling_law(Systematic()), "preserving", 0.01)
    assert_broken(filter_law(), "unbiased: ", 0.01)


def test_evidence_that_forgets_the_resampled_weight_is_biased(monkeypatch) -> None:
    plant(
        monkeypatch, Resample, "step", "population.log_evidence + gained", "population.log_evidence"
    )
    assert_broken(resampling_law(Systematic()), "preserving", 0.01)
    assert_broken(filter_law(), "unbiased: ", 0.01)


def test_resampling_again_at_the_end_with_weights_kept_is_biased(monkeypatch) -> None:
    """`selection="sample"` of a popular sampler: the final weight is applied twice."""
    shipped = sampler.posterior_of

    def twice(run, process, target):
        posterior = shipped(run, process, target)
        ancestors = Systematic()(random.key(0), posterior.log_weights, 2)
        particles = process.gather(posterior.particles, ancestors)
        return type(posterior)(
            particles=particles,
            log_weights=posterior.log_weights[ancestors],
            log_evidence=posterior.log_evidence,
            info=posterior.info,
            cost=posterior.cost,
            target=target,
        )

    monkeypatch.setattr(sampler, "posterior_of", twice)
    monkeypatch.setattr(random, "uniform", lambda *args, **kwargs: jnp.array(0.5))
    assert_broken(importance_law(), "unbiased: ", 0.001)


# -------------------------------------------------------------------- a wrong final-step weight


def test_evidence_without_the_final_weights_is_biased(monkeypatch) -> None:
    plant(
        monkeypatch,
        sampler,
        "posterior_of",
        "population.log_evidence_estimate",
        "population.log_evidence",
    )
    assert_broken(filter_law(), "unbiased", 0.01)


def test_final_weights_that_are_dropped_break_unbiasedness(monkeypatch) -> None:
    plant(
        monkeypatch,
        sampler,
        "posterior_of",
        "log_weights=population.log_weights,",
        "log_weights=jnp.zeros_like(population.log_weights),",
    )
    assert_broken(filter_law(), "unbiased: ", 0.001)


def test_potential_of_the_last_step_left_out_breaks_unbiasedness(monkeypatch) -> None:
    plant(
        monkeypatch,
        Extend,
        "step",
        "jnp.where(active, increments, 0.0)",
        "jnp.where(active & (population.time + 1 < process.num_steps), increments, 0.0)",
    )
    assert_broken(filter_law(), "unbiased: ", 0.01)


# -------------------------------------------------------------------- plain means


@pytest.mark.slow
def test_plain_means_of_increments_bias_the_evidence(monkeypatch) -> None:
    """mean(G) is the increment of the evidence only just after a resampling."""
    plant(
        monkeypatch,
        Extend,
        "step",
        "log_evidence=population.log_evidence,",
        "log_evidence=population.log_evidence + jnp.log(jnp.mean(jnp.exp(increments), axis=-1)),",
    )
    plant(
        monkeypatch, Resample, "step", "population.log_evidence + gained", "population.log_evidence"
    )
    monkeypatch.setattr(
        Population,
        "start",
        classmethod(
            lambda cls, particles, log_weights: cls(
                particles=particles,
                log_weights=log_weights,
                log_evidence=jnp.log(jnp.mean(jnp.exp(log_weights), axis=-1)),
                time=jnp.zeros((), jnp.int32),
                status=jnp.zeros((), jnp.int32),
            )
        ),
    )
    monkeypatch.setattr(
        Population, "log_evidence_estimate", property(lambda self: self.log_evidence)
    )
    assert_broken(filter_law(), "unbiased", 0.001)
    # Where every step resamples the same fault is none: a test without this branch is blind.
    monkeypatch.setattr(Population, "ess", property(lambda self: jnp.array(1e-3)))
    assert (
        laws.check_unbiased(
            ParticleFilter(num_particles=2, ess_threshold=1.0), LANGUAGE.process("odds")
        ).max_error
        < 1e-10
    )


# -------------------------------------------------------------------- schemes and genealogy


def test_residual_draws_from_whole_weights_break_preservation(monkeypatch) -> None:
    plant(
        monkeypatch,
        Residual,
        "__call__",
        "counting.scaled_prefix_sum(expected - sure, 1)",
        "counting.scaled_prefix_sum(expected, 1)",
    )
    assert_broken(resampling_law(Residual()), "preserving", 0.001)


def test_one_uniform_for_two_strata_breaks_the_law_of_keys_or_counts(monkeypatch) -> None:
    plant(monkeypatch, stratified, "_place", "offsets[stratum]", "offsets[0]")
    report = resampling_law(Stratified())
    assert not report, str(report)


def test_ancestors_shifted_by_one_break_preservation(monkeypatch) -> None:
    shipped = counting.ancestors_from_cumulative_counts
    monkeypatch.setattr(
        counting,
        "ancestors_from_cumulative_counts",
        lambda cumulative, num: (shipped(cumulative, num) + 1) % cumulative.shape[0],
    )
    assert_broken(resampling_law(Systematic()), "preserving", 0.01)


def test_lineages_that_skip_a_generation_break_the_genealogy(monkeypatch) -> None:
    def wrong(ancestors):
        final = jnp.arange(ancestors.shape[1], dtype=ancestors.dtype)
        return jnp.concatenate([ancestors, final[None]])  # parents, but not parents of parents

    monkeypatch.setattr(genealogy, "lineages", wrong)
    assert_broken(filter_law(), "genealogy")


def test_a_leaf_that_is_not_gathered_breaks_unbiasedness(monkeypatch) -> None:
    process_type = type(LANGUAGE.process("odds"))
    shipped = process_type.gather

    def forgetful(self, particles, ancestors):
        moved = shipped(self, particles, ancestors)
        return type(moved)(particles.prefix, moved.length, moved.symbol, moved.done)

    monkeypatch.setattr(process_type, "gather", forgetful)
    assert_broken(filter_law(), "unbiased: ", 0.001)


def test_a_fault_that_no_longer_applies_is_an_error(monkeypatch) -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        plant(monkeypatch, Extend, "step", "no such fragment", "")
    assert np.isfinite(filter_law().max_error)
