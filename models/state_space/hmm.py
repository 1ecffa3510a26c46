"""Hidden Markov model with finitely many states, and its forward-backward recursions.

    z_0 ~ pi,   P(z_t = j | z_{t-1} = i) = A_ij,   P(y_t = v | z_t = k) = B_kv,   t = 1..T

Rabiner 1989, in log space. Shape letters: K states, V symbols, T steps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float, Int
from numpyro.contrib.control_flow import scan

from jurax.models.state_space.base import AbstractStateSpace
from jurax.ppl.program import Program, bind
from jurax.ppl.state_space import StateSpaceModel


class HiddenMarkovModel(AbstractStateSpace):
    """The model as a process; particles are states `(N,)`. Finite: `jurax.ppl.laws` enumerates it.

    Attributes:
        observations: y_1..y_T, symbols 0..V-1.
        initial: pi.
        transition_matrix: A, rows sum to 1.
        emission_matrix: B, rows sum to 1.

    Example:
        >>> import jax
        >>> model = HiddenMarkovModel.simulate(jax.random.key(0), num_steps=20)
        >>> result = model.smoothed()
        >>> result.smoothed.shape, result.pairs.shape
        ((21, 3), (20, 3, 3))
    """

    observations: Int[Array, " T"]
    initial: Float[Array, " K"]
    transition_matrix: Float[Array, "K K"]
    emission_matrix: Float[Array, "K V"]

    def __init__(
        self,
        observations: Int[ArrayLike, " T"],
        initial: Float[ArrayLike, " K"],
        transition_matrix: Float[ArrayLike, "K K"],
        emission_matrix: Float[ArrayLike, "K V"],
    ):
        emission_matrix = jnp.asarray(emission_matrix, float)
        self.observations = _symbols(observations, emission_matrix.shape[-1])
        self.initial = _laws("initial", initial)
        self.transition_matrix = _laws("transition_matrix", transition_matrix)
        self.emission_matrix = _laws("emission_matrix", emission_matrix)

    @classmethod
    def simulate(
        cls,
        key: Array,
        num_steps: int = 50,
        num_states: int = 3,
        num_symbols: int = 4,
    ) -> "HiddenMarkovModel":
        """A series of a random model; rows of its matrices are Dirichlet(1) draws.

        Args:
            key: consumed.
            num_steps: T >= 1.
            num_states: K >= 1.
            num_symbols: V >= 1.
        """
        keys = jax.random.split(key, 5)
        initial = jax.random.dirichlet(keys[0], jnp.ones(num_states))
        transition = jax.random.dirichlet(keys[1], jnp.ones(num_states), (num_states,))
        emission = jax.random.dirichlet(keys[2], jnp.ones(num_symbols), (num_states,))
        key_first, key_moves = jax.random.split(keys[3])
        first = jax.random.categorical(key_first, jnp.log(initial))

        def step(state: Array, keys: Array) -> tuple[Array, Array]:
            state = jax.random.categorical(keys[0], jnp.log(transition[state]))
            return state, jax.random.categorical(keys[1], jnp.log(emission[state]))

        moves = jax.random.split(key_moves, (num_steps, 2))
        _, observations = jax.lax.scan(step, first, moves)
        return cls(observations, initial, transition, emission)

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """T."""
        return self.observations.shape[0]

    @property
    def target(self) -> str:  # type: ignore[override]
        """The density of the states given the series."""
        return f"p(z[0:{self.num_steps}] | y) of a hidden Markov model"

    def state_space(self) -> StateSpaceModel:
        """The description of one particle."""
        return StateSpaceModel(
            initial=dist.CategoricalProbs(self.initial),
            transition=self.transition,
            potential=self.potential,
            num_steps=self.num_steps,
        )

    def transition(self, state: Int[Array, ""], t: Int[Array, ""]) -> dist.Distribution:
        """Law of z_t given z_{t-1}."""
        del t
        return dist.CategoricalProbs(self.transition_matrix[state])

    def potential(self, state: Int[Array, ""], t: Int[Array, ""]) -> Float[Array, ""]:
        """Log-probability of y_t; 0 at t = 0."""
        if self.num_steps == 0:
            return jnp.zeros(())
        symbol = self.observations[jnp.maximum(t, 1) - 1]
        return jnp.where(t > 0, jnp.log(self.emission_matrix[state, symbol]), 0.0)

    def program(self) -> Program:
        """The same model as a NumPyro program, with this data."""
        return bind(
            hmm_program,
            self.observations,
            self.initial,
            self.transition_matrix,
            self.emission_matrix,
        )

    def smoothed(self) -> "ForwardBackward":
        """Exact filtering, smoothing and pair probabilities, and the evidence."""
        return forward_backward(self)

    def log_evidence(self) -> Float[Array, ""]:
        """Exact log p(y_{1:T})."""
        return forward_backward(self).log_evidence


def hmm_program(observations, initial, transition_matrix, emission_matrix):
    """A plain NumPyro program; it knows nothing of Jurax."""
    z_0 = numpyro.sample("z_0", dist.CategoricalProbs(initial))

    def step(z, y):
        z = numpyro.sample("z", dist.CategoricalProbs(transition_matrix[z]))
        numpyro.sample("y", dist.CategoricalProbs(emission_matrix[z]), obs=y)
        return z, None

    scan(step, z_0, observations)


class ForwardBackward(eqx.Module):
    """Exact answers of a hidden Markov model.

    Attributes:
        filtered: P(z_t | y_{1:t}), t = 0..T.
        smoothed: P(z_t | y_{1:T}), t = 0..T.
        pairs: P(z_{t-1}, z_t | y_{1:T}), t = 1..T.
        log_evidence: log p(y_{1:T}).
    """

    filtered: Float[Array, "T1 K"]
    smoothed: Float[Array, "T1 K"]
    pairs: Float[Array, "T K K"]
    log_evidence: Float[Array, ""]


def forward_backward(model: HiddenMarkovModel) -> ForwardBackward:
    """Sum over all state sequences.

    Forward a_t(k) = log p(z_t = k, y_{1:t}); backward b_t(k) = log p(y_{t+1:T} | z_t = k).
    """
    moves = jnp.log(model.transition_matrix)
    emissions = jnp.log(model.emission_matrix)[:, model.observations].T
    lse = jax.nn.logsumexp

    def forward(log_joint: Array, emission: Array) -> tuple[Array, Array]:
        log_joint = lse(log_joint[:, None] + moves, axis=0) + emission
        return log_joint, log_joint

    def backward(log_future: Array, emission: Array) -> tuple[Array, Array]:
        log_future = lse(moves + (emission + log_future)[None, :], axis=1)
        return log_future, log_future

    first, last = jnp.log(model.initial), jnp.zeros_like(model.initial)
    joints = jnp.concatenate([first[None], jax.lax.scan(forward, first, emissions)[1]])
    futures = jax.lax.scan(backward, last, emissions, reverse=True)[1]
    futures = jnp.concatenate([futures, last[None]])
    log_evidence = lse(joints[-1])
    arrivals = (emissions + futures[1:])[:, None, :]
    pairs = joints[:-1, :, None] + moves[None] + arrivals - log_evidence
    return ForwardBackward(
        filtered=jax.nn.softmax(joints, axis=1),
        smoothed=jnp.exp(joints + futures - log_evidence),
        pairs=jnp.exp(pairs),
        log_evidence=log_evidence,
    )


def _symbols(values: ArrayLike, num_symbols: int) -> Int[Array, " T"]:
    """Symbols 0..V-1; values that are traced cannot be looked at and pass."""
    if not isinstance(values, jax.core.Tracer):
        given = np.asarray(values)
        if np.any((given != given.astype(int)) | (given < 0) | (given >= num_symbols)):
            raise ValueError(
                f"observations must be symbols 0..{num_symbols - 1}, one for each column of "
                f"emission_matrix, got values from {given.min()} to {given.max()}"
            )
    return jnp.asarray(values, int)


def _laws(name: str, values: ArrayLike) -> Float[Array, "..."]:
    """Probabilities that sum to 1 over the last axis; traced values pass."""
    laws = jnp.asarray(values, float)
    if not isinstance(laws, jax.core.Tracer):
        sums = np.sum(np.asarray(laws), axis=-1)
        if np.any(np.asarray(laws) < 0) or not np.allclose(sums, 1, atol=1e-4):
            raise ValueError(
                f"{name} must hold probabilities that sum to 1 over its last axis, got sums {sums}"
            )
    return laws
