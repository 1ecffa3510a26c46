"""Cycles and mixtures of Markov kernels: `a >> b` and `mixture([a, b], probabilities)`.

Both leave the target invariant if their parts do: the parts of a cycle are run in order, a mixture
draws one of them with probabilities that do not look at the state (Tierney 1994, section 2.4).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.ppl import random


class AbstractComposition(AbstractMCMCKernel):
    """What cycles and mixtures share: tuning is that of the parts, side by side."""

    @property
    def parts(self) -> tuple[AbstractMCMCKernel, ...]:
        """The kernels it is made of."""
        raise NotImplementedError

    @property
    def target_acceptance(self):
        """Of all parts."""
        return tuple(t for part in self.parts for t in part.target_acceptance)

    @property
    def is_tuned(self):
        """Of all parts."""
        return tuple(t for part in self.parts for t in part.is_tuned)

    def largest_step_sizes(self):
        """Of all parts."""
        return tuple(t for part in self.parts for t in part.largest_step_sizes())

    def step_sizes(self, dim):
        """Of all parts."""
        return jnp.concatenate([part.step_sizes(dim) for part in self.parts])

    def init(self, log_density, x):
        """The state at `x`, with a gradient if a part needs one."""
        states = [part.init(log_density, x) for part in self.parts]
        return next((s for s in states if s.grad is not None), states[0])

    def tuned_parts(self, step_sizes: Array, scale: Array) -> list[AbstractMCMCKernel]:
        """The parts with their shares of the step sizes."""
        tuned, start = [], 0
        for part in self.parts:
            end = start + len(part.target_acceptance)
            tuned.append(part.tuned(step_sizes[start:end], scale))
            start = end
        return tuned


class Cycle(AbstractComposition):
    """`first >> second`."""

    first: AbstractMCMCKernel
    second: AbstractMCMCKernel

    @property
    def parts(self):
        """Both."""
        return (self.first, self.second)

    def tuned(self, step_sizes, scale):
        """Both tuned."""
        return Cycle(*self.tuned_parts(step_sizes, scale))

    def step(self, key, state, log_density):
        """Both steps, each with its own key."""
        key_first, key_second = random.split(key)
        state, first = self.first.step(key_first, state, log_density)
        state, second = self.second.step(key_second, state, log_density)
        return state, {n: jnp.concatenate([first[n], second[n]], axis=-1) for n in first}


class MixedChains(AbstractComposition):
    """One of `kernels` at each step, drawn with `probabilities`; built by `mixture`."""

    kernels: tuple[AbstractMCMCKernel, ...]
    probabilities: Float[Array, " K"] = eqx.field(converter=jnp.asarray)

    @property
    def parts(self):
        """The kernels."""
        return self.kernels

    def tuned(self, step_sizes, scale):
        """All tuned."""
        return MixedChains(tuple(self.tuned_parts(step_sizes, scale)), self.probabilities)

    def step(self, key, state, log_density):
        """Draw a kernel, the same for all rows, and make its step; consumes `key`."""
        key_choice, key_step = random.split(key)
        choice = random.categorical(key_choice, jnp.log(self.probabilities))
        branches = [self._branch(i, log_density) for i in range(len(self.kernels))]
        return jax.lax.switch(choice, branches, key_step, state)

    def _branch(self, index: int, log_density):
        """The step of one kernel; the parts of the others accept with probability NaN."""
        sizes = [len(part.target_acceptance) for part in self.kernels]
        before, after = sum(sizes[:index]), sum(sizes[index + 1 :])

        def step(key, state):
            state, info = self.kernels[index].step(key, state, log_density)
            fill = {"acceptance": jnp.nan, "diverging": False}
            padding = [(0, 0)] * (info["acceptance"].ndim - 1) + [(before, after)]
            padded = {
                name: jnp.pad(info[name], padding, constant_values=fill[name]) for name in fill
            }
            return state, padded

        return step
