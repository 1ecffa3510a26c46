"""Tempered SMC and NUTS on a logistic regression, d = 20, n = 1,000: jurax and its peers.

y_i ~ Bernoulli(expit(x_i b)), b ~ N(0, I), x_i ~ N(0, I), the first column 1. Both tempered
samplers: adaptive ladder at an ESS of N/2, systematic resampling, moves in the covariance (RWMH) or
the variances (HMC) of the population, the whole loop one compiled function. Each `prepare` returns
`run(seed) -> log-evidence` (for NUTS the mean of b_0), synchronised.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

NUM_ROWS, DIM = 1000, 20


def data() -> tuple[jax.Array, jax.Array]:
    """Covariates and outcomes, the same in every process."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_ROWS, DIM))
    x[:, 0] = 1.0
    chance = 1 / (1 + np.exp(-x @ rng.normal(size=DIM)))
    y = rng.uniform(size=NUM_ROWS) < chance
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def model(x, y):
    """The regression as a NumPyro program."""
    b = numpyro.sample("b", dist.Normal(jnp.zeros(DIM), 1.0).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)


def log_prior(b):
    """Log N(b; 0, I)."""
    return -0.5 * jnp.sum(b**2) - 0.5 * DIM * jnp.log(2 * jnp.pi)


def log_likelihood(b, x, y):
    """Bernoulli, written as a user of the peer would."""
    logits = x @ b
    return jnp.sum(y * logits - jax.nn.softplus(logits))


def jurax_tempered(kind: str, num_particles: int):
    """Ours, through `infer`."""
    from jurax.inference import HMC, RWMH, TemperedSMC, infer
    from jurax.ppl import bind

    program = bind(model, *data())
    if kind == "rwmh":
        algorithm = TemperedSMC(num_particles, move=RWMH(2.38 / DIM**0.5), num_moves=10)
    else:
        move = HMC(step_size=0.2, num_leapfrogs=8)
        algorithm = TemperedSMC(num_particles, move=move, num_moves=1, dense=False)
    return lambda seed: float(infer(jax.random.key(seed), program, algorithm).log_evidence)


def blackjax_tempered(kind: str, num_particles: int):
    """blackjax: adaptive_tempered_smc inside inner_kernel_tuning, in a while_loop."""
    import blackjax
    from blackjax.smc import extend_params, resampling

    x, y = data()
    if kind == "rwmh":
        kernel = blackjax.rmh.build_kernel()

        def step(key, state, logdensity, root):
            noise = lambda k, position: root @ jax.random.normal(k, (DIM,))  # noqa: E731
            proposal = lambda k, position: position + noise(k, position)  # noqa: E731
            return kernel(key, state, logdensity, proposal)

        start, num_moves = {"root": 2.38 / DIM**0.5 * jnp.eye(DIM)}, 10
        mcmc_init = blackjax.rmh.init

        def learn(key, state, info):
            del key, info
            covariance = jnp.cov(state.particles.T) + 1e-6 * jnp.eye(DIM)
            root = 2.38 / DIM**0.5 * jnp.linalg.cholesky(covariance)
            return extend_params({"root": root})
    else:
        hmc = blackjax.hmc.build_kernel()

        def step(key, state, logdensity, variance):
            return hmc(key, state, logdensity, 0.2, variance, 8)

        start, num_moves = {"variance": jnp.ones(DIM)}, 1
        mcmc_init = blackjax.hmc.init

        def learn(key, state, info):
            del key, info
            return extend_params({"variance": jnp.var(state.particles, axis=0)})

    @jax.jit
    def compiled(key, x, y):
        algorithm = blackjax.inner_kernel_tuning(
            smc_algorithm=blackjax.adaptive_tempered_smc,
            logprior_fn=log_prior,
            loglikelihood_fn=lambda b: log_likelihood(b, x, y),
            mcmc_step_fn=step,
            mcmc_init_fn=mcmc_init,
            resampling_fn=resampling.systematic,
            mcmc_parameter_update_fn=learn,
            initial_parameter_value=extend_params(start),
            target_ess=0.5,
            num_mcmc_steps=num_moves,
        )
        key_init, key_loop = jax.random.split(key)
        first = algorithm.init(jax.random.normal(key_init, (num_particles, DIM)))

        def stage(carry):
            state, key, total = carry
            key, key_step = jax.random.split(key)
            state, info = algorithm.step(key_step, state)
            return state, key, total + info.log_likelihood_increment

        def is_running(carry):
            return carry[0].sampler_state.tempering_param < 1

        return jax.lax.while_loop(is_running, stage, (first, key_loop, jnp.zeros(())))[2]

    return lambda seed: float(compiled(jax.random.key(seed), x, y))


def jurax_nuts(num_chains: int):
    """Ours, through `infer`: 500 steps of warm-up, 500 draws."""
    from jurax.inference import NUTS, infer
    from jurax.ppl import bind

    program = bind(model, *data())
    algorithm = NUTS(num_samples=500, num_warmup=500, num_chains=num_chains)

    def run(seed):
        return float(infer(jax.random.key(seed), program, algorithm).particles["b"][..., 0].mean())

    return run


def numpyro_nuts(num_chains: int):
    """Numpyro's functional door, start, warm-up and draws in one compiled function."""
    from numpyro.infer.hmc import hmc
    from numpyro.infer.util import initialize_model
    from numpyro.util import fori_collect

    x, y = data()

    def chain(key, x, y):
        key_init, key_run = jax.random.split(key)
        info = initialize_model(key_init, model, model_args=(x, y))
        init, sample = hmc(info.potential_fn, algo="NUTS")
        state = init(info.param_info, num_warmup=500, rng_key=key_run)
        read = lambda s: (s.z, s.accept_prob, s.diverging, s.num_steps, s.energy)  # noqa: E731
        draws = fori_collect(500, 1000, sample, state, transform=read, progbar=False)
        return jax.vmap(info.postprocess_fn)(draws[0])["b"][:, 0].mean()

    @partial(jax.jit)
    def compiled(key, x, y):
        keys = jax.random.split(key, num_chains)
        return jax.vmap(chain, in_axes=(0, None, None))(keys, x, y).mean()

    return lambda seed: float(compiled(jax.random.key(seed), x, y))
