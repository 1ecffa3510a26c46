"""From programs to processes: what is state, what is recorded, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import cond, scan

from jurax.inference import ParticleFilter, infer
from jurax.ppl import bind, sequential

Y = jnp.array([0.3, 1.0, -0.5, 0.2])


def walk(y):
    """Two parameters, one state, one deterministic site of each kind."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.deterministic("variance", noise**2)
    x_0 = numpyro.sample("x_0", dist.Normal(mean, 1.0))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(x, 0.5))
        numpyro.deterministic("square", x**2)
        numpyro.sample("y", dist.Normal(x, noise), obs=y_t)
        return x, 3 * x

    _, tripled = scan(step, x_0, y)
    return tripled


# ------------------------------------------------------------ state and parameters


def test_names():
    process = sequential(walk, Y)
    assert process.num_steps == 4
    assert process.parameters == ("mean", "noise")
    assert [name for name, _ in process.plan.state] == ["x_0"]
    assert process.target == "p(mean, noise, x_0, x[1:4] | y) of walk"
    assert sequential(bind(walk, Y)).plan == process.plan


def test_state_is_a_leaf_of_the_carry_itself():
    """Passing through arithmetic makes a site a parameter, unless `state=` says otherwise."""

    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))
        z_0 = numpyro.sample("z_0", dist.Normal(0.0, 1.0))

        def step(carry, y_t):
            x = numpyro.sample("x", dist.Normal(carry["x"] + carry["z"], 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
            return {"x": x, "z": carry["z"]}, None

        scan(step, {"x": x_0 + 0.0, "z": z_0}, y)

    assert sequential(program, Y).parameters == ("x_0",)
    chosen = sequential(program, Y, state=["x_0", "z_0"])
    assert chosen.parameters == ()
    assert set(chosen.plan.kept) == {"x_0", "z_0"}  # no site of a step holds them
    with pytest.raises(ValueError, match="not latent sites before the scan"):
        sequential(program, Y, state=["x"])


def test_state_that_the_body_closes_over_is_kept(key):
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 3.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x_0, 1e-4))  # always near the start
            return x, None

        scan(step, x_0, y)

    process = sequential(program, Y)
    assert process.plan.kept == ("x_0",)
    particles, _ = process.init(key, 5)
    start = particles.carry
    for t in (1, 2, 3):
        particles, _ = process.extend(jax.random.fold_in(key, t), particles, t)
    np.testing.assert_allclose(particles.carry, start, atol=1e-2)


def test_state_that_nothing_needs_is_not_carried():
    process = sequential(walk, Y)
    assert process.plan.kept == ()
    particles, _ = process.init(jax.random.key(0), 3)
    assert len(jax.tree.leaves(particles)) == 4  # mean, noise, carry, square


# ------------------------------------------------------------ the law, move by move


def test_replay_adds_up_to_the_joint_density(key):
    """Sum of log-densities and weights of all moves = NumPyro's density of the whole trace."""
    process = sequential(walk, Y)
    values = {"mean": jnp.array(0.2), "noise": jnp.array(0.6)}
    fixed = process.at(values)
    path = jax.random.normal(key, (5,))
    program = bind(walk, Y)
    joint = program.log_density({**values, "x_0": path[0], "x": path[1:]})
    particles, weights, log_probs = fixed.replay(None, {"x": path[:1]}, 0)
    total = weights + log_probs
    for t in range(1, 5):
        particles, increments, log_probs = fixed.replay(particles, {"x": path[t : t + 1]}, t)
        total = total + increments + log_probs
    np.testing.assert_allclose(total[0] + process.log_prior(values), joint, rtol=1e-5)


def test_at_fixes_parameters(key):
    process = sequential(walk, Y).at({"noise": 0.5})
    assert process.parameters == ("mean",)
    fixed = process.at({"mean": 1.0})
    assert fixed.parameters == ()
    assert [name for name, _ in fixed.plan.state] == ["x_0"]
    particles, _ = fixed.init(key, 20_000)
    np.testing.assert_allclose(jnp.mean(particles.carry), 1.0, atol=0.04)
    with pytest.raises(ValueError, match="not parameters"):
        fixed.at({"noise": 1.0})
    with pytest.raises(ValueError, match="shape"):
        process.at({"mean": jnp.ones(2)})


def test_log_prior():
    process = sequential(walk, Y)
    values = {"mean": jnp.array(0.3), "noise": jnp.array(0.7)}
    expected = dist.Normal(0.0, 1.0).log_prob(0.3) + dist.HalfNormal(1.0).log_prob(0.7)
    np.testing.assert_allclose(process.log_prior(values), expected, rtol=1e-6)
    gradient = jax.grad(process.log_prior)(values)
    np.testing.assert_allclose(gradient["mean"], -0.3, rtol=1e-6)
    with pytest.raises(ValueError, match="noise"):
        process.log_prior({"mean": 0.3})


def test_log_prior_that_depends_on_state():
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))
        shift = numpyro.sample("shift", dist.Normal(x_0, 1.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x + shift, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
            return x, None

        scan(step, x_0, y)

    process = sequential(program, Y)
    assert process.parameters == ("shift",)
    with pytest.raises(NotImplementedError, match="x_0"):
        process.log_prior({"shift": 0.0})


def test_replay_of_the_initial_move_needs_fixed_parameters():
    process = sequential(walk, Y)
    with pytest.raises(ValueError, match="at\\(values\\)"):
        process.replay(None, {"x": jnp.zeros(3)}, 0)


def test_sites_before_the_scan_weigh_initial_particles(key):
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))
        numpyro.sample("y_0", dist.Normal(x_0, 0.5), obs=1.0)
        numpyro.factor("push", 2 * x_0)

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.factor("pull", -(x**2))
            return x, None

        scan(step, x_0, y)

    process = sequential(program, Y)
    particles, weights = process.init(key, 6)
    x = particles.carry
    expected = dist.Normal(x, 0.5).log_prob(1.0) + 2 * x
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    particles, increments = process.extend(key, particles, 1)
    np.testing.assert_allclose(increments, -(particles.carry**2), rtol=1e-5)
    assert "y_0, push, pull" in process.target


def test_prior_draws_without_weights(key):
    process = sequential(walk, Y).prior()
    particles, weights = process.init(key, 4)
    _, increments = process.extend(key, particles, 1)
    assert not weights.any() and not increments.any()


def test_time_may_differ_by_row(key):
    process = sequential(walk, Y)
    particles, _ = process.init(jax.random.key(0), 4)
    times = jnp.array([1, 4, 2, 3])
    particles, increments = process.extend(key, particles, times)
    expected = dist.Normal(particles.carry, particles.parameters["noise"]).log_prob(Y[times - 1])
    np.testing.assert_allclose(increments, expected, rtol=1e-5)


# ------------------------------------------------------------ records


def test_trajectories_are_what_numpyro_stacks(key):
    posterior = infer(key, bind(walk, Y), ParticleFilter(num_particles=30, history=True))
    paths = posterior.trajectories()
    with numpyro.handlers.trace() as trace, numpyro.handlers.seed(rng_seed=0):
        walk(Y)
    for name in ("mean", "noise", "x_0", "x", "square"):
        assert paths[name].shape == (30, *jnp.shape(trace[name]["value"])), name
    np.testing.assert_allclose(paths["square"], paths["x"] ** 2, rtol=1e-5)
    np.testing.assert_allclose(posterior.particles["x"], paths["x"][:, -1])
    np.testing.assert_allclose(
        posterior.particles["variance"], posterior.particles["noise"] ** 2, rtol=1e-6
    )


def test_records_of_states_that_no_step_holds(key):
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, y_t):
            noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(x + noise, 1.0), obs=y_t)
            return x + noise, None

        scan(step, x_0, y)

    process = sequential(program, Y)
    paths = infer(key, process, ParticleFilter(num_particles=7, history=True)).trajectories()
    assert {name: x.shape for name, x in paths.items()} == {"x_0": (7,), "noise": (7, 4)}
    particles, _ = process.init(key, 3)
    again, _, _ = process.replay(None, process.record(particles, 0), 0)
    np.testing.assert_array_equal(again.carry, particles.carry)


def test_predictive_draws_of_a_program_without_data(key):
    def program(length, y=None):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
            return x, None

        scan(step, x_0, y, length=length)

    process = sequential(program, 3)
    paths = infer(key, process, ParticleFilter(num_particles=9, history=True)).trajectories()
    assert paths["y"].shape == (9, 3)
    assert sequential(program, 4, y=Y).plan.observed == ("y",)


# ------------------------------------------------------------ NumPyro features


def weights_of(program, *args, key=None):
    """Increments of one extension and the particles, eagerly."""
    process = sequential(program, *args)
    particles, _ = process.init(jax.random.key(1), 5)
    return process.extend(jax.random.key(3) if key is None else key, particles, 1)


def test_plates_inside_the_body(key):
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

        def step(x, y_t):
            with numpyro.plate("places", 3):
                x = numpyro.sample("x", dist.Normal(x, 1.0))
                numpyro.sample("y", dist.Normal(x, 0.5), obs=y_t)
            return x, None

        scan(step, x_0, y)

    particles, increments = weights_of(program, jnp.ones((4, 3)))
    expected = dist.Normal(particles.carry, 0.5).log_prob(1.0).sum(-1)
    np.testing.assert_allclose(increments, expected, rtol=1e-5)
    assert len(np.unique(particles.carry)) == 15


def test_condition_handler_around_the_program():
    def program(length):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, _):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5))
            return x, None

        scan(step, x_0, None, length=length)

    conditioned = numpyro.handlers.condition(program, {"y": Y})
    process = sequential(conditioned, 4)
    assert process.plan.observed == ("y",) and process.plan.latent == ("x",)
    particles, _ = process.init(jax.random.key(0), 5)
    particles, increments = process.extend(jax.random.key(1), particles, 2)
    np.testing.assert_allclose(
        increments, dist.Normal(particles.carry, 0.5).log_prob(Y[1]), rtol=1e-5
    )


def test_mask_and_scale_around_and_inside():
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            with numpyro.handlers.mask(mask=y_t > 0.5):
                numpyro.sample("y", dist.Normal(x, 0.5), obs=y_t)
            with numpyro.handlers.scale(scale=3.0):
                numpyro.sample("z", dist.Normal(x, 0.5), obs=y_t)
            return x, None

        with numpyro.handlers.scale(scale=2.0):
            scan(step, x_0, y)

    particles, increments = weights_of(program, Y)  # y_1 = .3: masked
    x = particles.carry
    expected = 6 * dist.Normal(x, 0.5).log_prob(Y[0])
    parent, _ = sequential(program, Y).init(jax.random.key(1), 5)
    expected += (2 - 1) * dist.Normal(parent.carry, 1.0).log_prob(x)  # p^2 for a draw from p
    np.testing.assert_allclose(increments, expected, rtol=1e-4)


def test_observation_masks():
    """`obs_mask`: observed elements weigh, the others are drawn."""

    def program(y, seen):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, inputs):
            y_t, seen_t = inputs
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y_t, obs_mask=seen_t)
            return x, None

        scan(step, x_0, (y, seen))

    for seen in (True, False):
        particles, increments = weights_of(program, Y, jnp.full(4, seen))
        density = dist.Normal(particles.carry, 0.5).log_prob(Y[0])
        np.testing.assert_allclose(increments, density if seen else 0 * density, rtol=1e-5)
        imputed = particles.sites["y"]
        assert bool(jnp.all(imputed == Y[0])) == seen


def test_missing_observations_weigh_one(key):
    process = sequential(walk, Y.at[1].set(jnp.nan))
    particles, _ = process.init(key, 5)
    _, first = process.extend(key, particles, 1)
    _, second = process.extend(key, particles, 2)
    assert np.all(first != 0) and np.all(second == 0)


def test_events_missing_in_part_are_reported(key):
    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.MultivariateNormal(x * jnp.ones(2), jnp.eye(2)), obs=y_t)
            return x, None

        scan(step, x_0, y)

    y = jnp.ones((3, 2)).at[1, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="NaN"):
        infer(key, sequential(program, y), ParticleFilter(num_particles=10))


def test_observations_outside_the_support_weigh_nothing(key):
    """NumPyro's densities rely on its checks for this; they must stay on."""

    def program(y):
        x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Uniform(x - 1.0, x + 1.0), obs=y_t)
            return x, None

        scan(step, x_0, y)

    particles, increments = weights_of(program, Y, key=key)
    inside = jnp.abs(particles.carry - Y[0]) <= 1
    np.testing.assert_allclose(increments, jnp.where(inside, -jnp.log(2.0), -jnp.inf), rtol=1e-6)
    assert 0 < inside.sum() < 5


def test_integer_and_weakly_typed_carries(key):
    def program(y):
        def step(carry, y_t):
            count, x = carry
            x = numpyro.sample("x", dist.Normal(x + count, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
            return (count + 1, x), None

        scan(step, (0, 0.0), y)

    posterior = infer(key, sequential(program, Y), ParticleFilter(num_particles=10))
    assert np.isfinite(posterior.log_evidence)


def test_discrete_latent_sites_are_drawn_not_summed(key):
    def program(y):
        z_0 = numpyro.sample("z_0", dist.Bernoulli(0.5))

        def step(z, y_t):
            probs = jnp.where(z == 1, 0.9, 0.2)
            z = numpyro.sample("z", dist.Bernoulli(probs), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y_t)
            return z, None

        scan(step, z_0, y)

    posterior = infer(key, sequential(program, Y), ParticleFilter(num_particles=50))
    assert set(np.unique(posterior.particles["z"])) <= {0, 1}


# ------------------------------------------------------------ refused by name


def body(x, y_t):
    x = numpyro.sample("x", dist.Normal(x, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
    return x, None


def no_scan(y):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def late_site(y):
    last, _ = scan(body, 0.0, y)
    numpyro.sample("final", dist.Normal(last, 1.0), obs=0.0)


def late_factor(y):
    last, _ = scan(body, 0.0, y)
    numpyro.factor("goal", -last)


def two_scans(y):
    scan(body, 0.0, y)
    scan(lambda x, _: (numpyro.sample("w", dist.Normal(x, 1.0)), None), 0.0, None, length=2)


def nested_scan(y):
    def outer(x, y_t):
        scan(body, x, y)
        return x, None

    scan(outer, 0.0, y)


def reversed_scan(y):
    scan(body, 0.0, y, reverse=True)


def conditional(y):
    def step(x, y_t):
        cond(y_t > 0, lambda _: numpyro.sample("z", dist.Normal()), lambda _: 0.0, None)
        return body(x, y_t)

    scan(step, 0.0, y)


def improper(y):
    level = numpyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), ()))
    scan(body, level, y)


def with_param(y):
    scan(body, numpyro.param("start", 1.0), y)


def subsampled(y):
    def step(x, y_t):
        with numpyro.plate("rows", 10, subsample_size=3):
            numpyro.sample("z", dist.Normal(x, 1.0))
        return body(x, y_t)

    scan(step, 0.0, y)


def own_randomness(y):
    scan(body, jax.random.normal(numpyro.prng_key()), y)


def plate_around(y):
    with numpyro.plate("rows", 2):
        scan(body, jnp.zeros(2), y)


def twice_the_same_name(y):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    scan(body, x, y)


def growing_carry(y):
    def step(x, y_t):
        x, _ = body(x, y_t)
        return jnp.stack([x, x]), None

    scan(step, 0.0, y)


def other_structure(y):
    def step(x, y_t):
        x, _ = body(x, y_t)
        return (x, x), None

    scan(step, 0.0, y)


def function_condition(y):
    with numpyro.handlers.condition(condition_fn=lambda site: None):
        scan(body, 0.0, y)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (no_scan, "no_scan has no numpyro.contrib.control_flow.scan"),
        (late_site, "'final'.*after the scan"),
        (late_factor, "'goal'.*after the scan"),
        (two_scans, "scan after another one"),
        (nested_scan, "scan inside the scan"),
        (reversed_scan, "reverse=True"),
        (conditional, "`cond`.*jnp.where"),
        (improper, "'level' has an improper prior"),
        (with_param, "param site 'start' has no prior"),
        (subsampled, "'rows' draws a subsample"),
        (own_randomness, "prng_key.*numpyro.sample"),
        (plate_around, "plate"),
        (twice_the_same_name, "two sites.*'x'"),
        (growing_carry, "carry changes in a step"),
        (other_structure, "same structure"),
        (function_condition, "handlers.condition around a scan"),
    ],
)
def test_refused_by_name(program, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        sequential(program, Y)


def test_refusals_leave_no_handler_behind():
    with pytest.raises(NotImplementedError):
        sequential(reversed_scan, Y)
    assert not numpyro.primitives._PYRO_STACK
    sequential(walk, Y)
    assert not numpyro.primitives._PYRO_STACK


def test_params_and_improper_sites_may_be_fixed(key):
    substituted = numpyro.handlers.substitute(with_param, {"start": jnp.array(2.0)})
    assert sequential(substituted, Y).parameters == ()
    intervened = bind(improper, Y).at({"level": 1.0})
    particles, _ = sequential(intervened).init(key, 3)
    np.testing.assert_allclose(particles.carry, 1.0)


def test_empty_scan():
    with pytest.raises(ValueError, match="length 0"):
        sequential(walk, jnp.zeros(0))


def test_bound_programs_take_no_more_arguments():
    with pytest.raises(TypeError, match="already bound"):
        sequential(bind(walk, Y), Y)


# ------------------------------------------------------------ compilation and keys


@pytest.mark.slow
def test_one_compilation_for_each_shape(key):
    runs = []

    def program(y):
        runs.append(1)
        walk(y)

    algorithm = ParticleFilter(num_particles=16, history=False)
    keys = jax.random.split(key, 3)

    def traced_in(key, y):
        """Runs of the program while inferring, those of `sequential` itself left out."""
        process = sequential(program, y)
        before = len(runs)
        posterior = infer(key, process, algorithm)
        return posterior, len(runs) - before

    first, count = traced_in(keys[0], Y)
    assert count > 0
    second, again = traced_in(keys[1], Y + 1)
    assert again == 0 and first.log_evidence != second.log_evidence
    assert traced_in(keys[2], jnp.zeros(6))[1] == count  # as often for longer series


def test_fixed_values_do_not_compile_again(key):
    runs = []

    def program(y):
        runs.append(1)
        walk(y)

    process = sequential(program, Y)
    algorithm = ParticleFilter(num_particles=16, history=False)
    infer(key, process.at({"noise": 0.5}), algorithm)
    other = process.at({"noise": 0.7})
    before = len(runs)
    infer(jax.random.key(1), other, algorithm)
    assert len(runs) == before


@pytest.mark.slow
def test_a_family_of_processes_maps_over_values(key):
    process = sequential(walk, Y)

    def log_evidence(noise):
        fixed = process.at({"noise": noise, "mean": jnp.array(0.0)})
        return infer(key, fixed, ParticleFilter(num_particles=200, history=False)).log_evidence

    noises = jnp.array([0.4, 1.0])
    together = jax.jit(jax.vmap(log_evidence))(noises)
    alone = jnp.stack([log_evidence(noise) for noise in noises])
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_keys_are_used_once(key, key_reuse):
    process = sequential(walk, Y)
    algorithm = ParticleFilter(num_particles=8, ess_threshold=1.0)
    jax.jit(lambda key: infer(key, process, algorithm).log_evidence)(key)


def test_noise_of_sites_and_slots_is_independent(key):
    """Draws of one slot against other sites and neighbouring slots, over steps."""
    from tests.statistics import assert_mean

    def program(length):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))

        def step(carry, _):
            a = numpyro.sample("c", dist.Normal(0.0, 1.0))
            b = numpyro.sample("d", dist.Normal(0.0, 1.0))
            return (a, b), None

        scan(step, (a, b), None, length=length)

    process = sequential(program, 2)
    key_init, *keys = jax.random.split(key, 3)
    particles, _ = process.init(key_init, 20_000)
    draws = [*particles.carry]
    for t, key_step in enumerate(keys, start=1):
        particles, _ = process.extend(key_step, particles, t)
        draws += [*particles.carry]
    draws = np.asarray(jnp.stack(draws), float)
    for i, first in enumerate(draws):
        for j, second in enumerate(draws):
            for shift in (0, 1, 2):
                if i != j or shift:
                    assert_mean(first[shift:] * second[: len(second) - shift], 0.0)
