r"""An oracle with dials in place of a reward model, for work on algorithms.

It executes the prefix in truth and hides what it sees behind noise. With `live` the exact liveness
of the prefix after t steps,

    log-odds_t = +gap if live, else -gap  + noise_t  + hack_bonus 1{stated value = attractive}
    noise_t    = rho noise_{t-1} + sqrt(1 - rho^2) (fact_noise f + prefix_noise z),  noise_0 = 0.

f is standard normal for each fact (operation, x, y, result), fixed by `seed` and shared by all
solutions of all problems: a consistent bias. z is standard normal for each prefix of a problem.
The noise moves when an instruction is complete; the answer step computes nothing and leaves it as
it is. So the log-odds are a function of the text alone, and the posterior is enumerable.

Shape letters: R rows, Q tokens of a step.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jurax.models.language import tokenizer
from jurax.models.language.liveness import (
    Fact,
    Trace,
    is_live,
    read,
    start_trace,
    stated_value,
)
from jurax.models.language.model import AbstractReward, State
from jurax.models.language.programs import Programs, encode_programs
from jurax.models.language.tokenizer import MODULUS, OPERATIONS

MULTIPLIER = 0x9E3779B1  # odd, so that no word of a text is lost modulo 2^32
# Best mean log score of the right answer for the default dials, under pools of 256 solutions of the
# executor weighted by each target: 300 validation problems, 4 seeds of both tables.
STRENGTHS = (("odds", 0.6), ("emission", 1.75), ("value", 7.0))


class Questions(eqx.Module):
    """Problems as the oracle knows them: `programs`, and `labels` that name their noise."""

    programs: Programs
    labels: UInt32[Array, " B"]


class Judgement(eqx.Module):
    """A row's prefix, the hash of its complete steps, and the noise so far."""

    trace: Trace
    label: UInt32[Array, "*R"]
    noise: Float[Array, "*R"]


class DialledReward(AbstractReward):
    """The true liveness of a prefix behind noise with dials; see the module docstring.

    It reads the truth: an oracle for work on algorithms, never for a demonstration. With the
    default dials, on solutions of the default `NoisyExecutor`, the last log-odds tell right from
    wrong solutions with an AUC of .90 inside a problem and .86 over all problems.

    Args:
        gap: half the distance of the mean log-odds of live and dead prefixes.
        fact_noise: standard deviation of the part that belongs to a fact.
        prefix_noise: standard deviation of the part that belongs to a prefix.
        autocorrelation: rho, in [0, 1).
        hack_bonus: added where the stated value is `attractive`.
        attractive: the value that earns the bonus, 0 to 18.
        seed: draws the noise.
        strengths: default exponents of the reward targets; fitted for the default dials.

    Raises:
        ValueError: a dial is outside of its range.

    Example:
        >>> from jurax.models.language.model import Steps
        >>> from jurax.models.language.programs import EXAMPLE
        >>> reward = DialledReward(fact_noise=0.0, prefix_noise=0.0)
        >>> state = reward.start(reward.encode([EXAMPLE]), num_particles=1, max_tokens=3)
        >>> right = Steps(jnp.array([tokenizer.encode("# 5 <end>")]), jnp.array([3]), jnp.zeros(1))
        >>> reward.score(state, right)[1].tolist()
        [0.800000011920929]
    """

    # Dials are arrays, so that a sweep over them compiles once.
    fact_table: Float[Array, "3 19 19 19"]
    gap: Float[Array, ""]
    prefix_noise: Float[Array, ""]
    autocorrelation: Float[Array, ""]
    hack_bonus: Float[Array, ""]
    attractive: Int[Array, ""]
    seed: Int[Array, ""]
    strengths: tuple[tuple[str, float], ...] = eqx.field(static=True)

    def __init__(
        self,
        *,
        gap: float = 0.8,
        fact_noise: float = 0.8,
        prefix_noise: float = 0.8,
        autocorrelation: float = 0.85,
        hack_bonus: float = 0.0,
        attractive: int = 7,
        seed: int = 0,
        strengths: tuple[tuple[str, float], ...] = STRENGTHS,
    ):
        sizes = {"gap": gap, "fact_noise": fact_noise, "prefix_noise": prefix_noise}
        for name, value in sizes.items():
            _require(0 <= value < np.inf, name, value, "a finite number >= 0")
        _require(0 <= autocorrelation < 1, "autocorrelation", autocorrelation, "a number in [0, 1)")
        _require(-np.inf < hack_bonus < np.inf, "hack_bonus", hack_bonus, "a finite number")
        _require(attractive in range(MODULUS), "attractive", attractive, "an integer in 0..18")
        shape = (len(OPERATIONS), MODULUS, MODULUS, MODULUS)
        table = np.random.default_rng([11, seed]).standard_normal(shape)
        self.fact_table = jnp.asarray(fact_noise * table, float)
        self.gap, self.prefix_noise = jnp.asarray(gap, float), jnp.asarray(prefix_noise, float)
        self.autocorrelation = jnp.asarray(autocorrelation, float)
        self.hack_bonus = jnp.asarray(hack_bonus, float)
        self.attractive, self.seed = jnp.asarray(attractive), jnp.asarray(seed)
        self.strengths = tuple(strengths)

    def encode(self, prompts):
        """Programs and noise labels of the prompts."""
        labels = [hash_tokens(np.uint32(0), np.array(tokenizer.encode(p))) for p in prompts]
        return Questions(encode_programs(prompts), jnp.asarray(np.array(labels, np.uint32)))

    def start(self, context, num_particles, max_tokens):
        """Rows that have read nothing."""
        del max_tokens
        num_rows = context.labels.shape[0] * num_particles
        rows = Judgement(
            trace=jax.vmap(start_trace)(context.programs.per_row(num_rows)),
            label=jnp.zeros(num_rows, jnp.uint32),
            noise=jnp.zeros(num_rows),
        )
        return State(rows=rows, shared=context)

    def score(self, state, steps):
        """Read a step and judge the prefix that ends with it."""
        num_rows = steps.counts.shape[0]
        programs = state.shared.programs.per_row(num_rows)
        labels = jnp.repeat(state.shared.labels, num_rows // len(state.shared.labels))
        rows, log_odds = jax.vmap(self._judge)(
            programs, labels, state.rows, steps.tokens, steps.counts
        )
        return State(rows=rows, shared=state.shared), log_odds

    def _judge(
        self,
        program: Programs,
        problem: UInt32[Array, ""],
        before: Judgement,
        tokens: Int[Array, " Q"],
        count: Int[Array, ""],
    ) -> tuple[Judgement, Float[Array, ""]]:
        """One row: the longer prefix and its log-odds."""
        trace, windows = read(program, before.trace, tokens, count)
        label, noise = before.label, before.noise
        for valid, words, fact in windows:
            longer = hash_tokens(label, words)
            label = jnp.where(valid, longer, label)
            noise = jnp.where(valid, self._next_noise(noise, fact, problem, longer), noise)
        log_odds = jnp.where(is_live(program, trace), self.gap, -self.gap) + noise
        log_odds += self.hack_bonus * (stated_value(trace) == self.attractive)
        return Judgement(trace=trace, label=label, noise=noise), log_odds

    def _next_noise(self, noise: Array, fact: Fact, problem: Array, prefix: Array) -> Array:
        # z is part of the potential, not of the algorithm's randomness: the same prefix has the
        # same z in every run, and an enumeration must not branch over it. Hence `jax.random`, and
        # float32 in double precision too, which would draw other numbers.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), problem), prefix)
        z = jax.random.normal(key, dtype=jnp.float32).astype(noise.dtype)
        f = self.fact_table[fact.operation, fact.x, fact.y, fact.result]
        fresh = f + self.prefix_noise * z
        return self.autocorrelation * noise + jnp.sqrt(1 - self.autocorrelation**2) * fresh


def hash_tokens(label, tokens):
    """Hash of a text continued by tokens, modulo 2^32; NumPy or JAX arrays.

    Example:
        >>> none = jnp.uint32(0)
        >>> begin = hash_tokens(none, jnp.array([3, 1]))
        >>> bool(hash_tokens(begin, jnp.array([4])) == hash_tokens(none, jnp.array([3, 1, 4])))
        True
    """
    powers = [pow(MULTIPLIER, len(tokens) - i, 2**32) for i in range(len(tokens) + 1)]
    powers = np.array(powers, np.uint32)
    return label * powers[0] + (tokens.astype(np.uint32) * powers[1:]).sum(dtype=np.uint32)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; expected {expected}")
