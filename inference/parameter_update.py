"""The other half of a Gibbs cycle: parameters given the path.

    theta ~ p(theta | x_{0:T}), proportional to p(theta) gamma_theta(x_{0:T}),

by a Markov kernel on the unconstrained parameters that leaves it invariant, with gamma_theta from
`replay`, or by a function of the user. Shape letters: D dimensions, P parts of a composed kernel.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.mcmc.tuning import Tuner, Tuning
from jurax.ppl import AbstractProcess
from jurax.ppl.family import draw_parameters, parameter_view
from jurax.ppl.pinned import replay_path
from jurax.ppl.unconstrained import Unconstrained


class ParameterState(eqx.Module):
    """Values by name, the vector that they come from (empty for a user's update), the tuning."""

    values: dict[str, Array]
    x: Float[Array, " D"]
    tuning: Tuning | None


class ParameterUpdate(eqx.Module):
    """Moves the parameters of `process` given a path.

    Attributes:
        process: a program or family with free parameters.
        kernel: a Markov kernel, or `(key, values, path, process) -> values`.
        num_warmup: steps of the warm-up.
    """

    process: AbstractProcess
    kernel: AbstractMCMCKernel | Callable
    num_warmup: int = eqx.field(static=True)

    def init(self, key: Array) -> ParameterState:
        """A draw from the prior; consumes `key`."""
        if not isinstance(self.kernel, AbstractMCMCKernel):
            drawn = draw_parameters(self.process, key, 1)
            return ParameterState({name: x[0] for name, x in drawn.items()}, jnp.zeros(0), None)
        view = self.view()
        x = view.draw(key)
        return ParameterState(view.constrain(x), x, self._tuner().init(view.dim))

    def step(
        self, key: Array, state: ParameterState, path: PyTree, inputs: tuple | None = None
    ) -> tuple[ParameterState, dict[str, Array]]:
        """One update; with `inputs` of the warm-up's schedule it is tuned. Consumes `key`."""
        if not isinstance(self.kernel, AbstractMCMCKernel):
            values = self.kernel(key, state.values, path, self.process)
            return ParameterState(values, state.x, None), {}
        view = self.view()

        def log_density(x: Array) -> Array:
            process = self.process.at(view.constrain(x))  # type: ignore[attr-defined]
            return view.log_density(x) + replay_path(process, path).log_density

        tuner, tuning = self._tuner(), state.tuning
        kernel = tuner.running(tuning)
        moved, info = kernel.step(key, kernel.init(log_density, state.x), log_density)
        if inputs is not None:
            tuning = tuner.update(tuning, moved.x, info["acceptance"], *inputs)
        return ParameterState(view.constrain(moved.x), moved.x, tuning), {
            "acceptance": info["acceptance"]
        }

    def freeze(self, state: ParameterState) -> ParameterState:
        """End the warm-up."""
        if state.tuning is None:
            return state
        return ParameterState(state.values, state.x, self._tuner().settled(state.tuning))

    def view(self) -> Unconstrained:
        """The parameters on R^D."""
        return parameter_view(self.process)

    def _tuner(self) -> Tuner:
        return Tuner(self.kernel, self.num_warmup)  # type: ignore[arg-type]


def check_update(kernel: Any) -> None:
    """Raise for what cannot move parameters."""
    if kernel is not None and not isinstance(kernel, AbstractMCMCKernel) and not callable(kernel):
        raise TypeError(
            "parameter_kernel must be a Markov kernel such as RWMH() or HMC(), or a function "
            f"(key, values, path, process) -> values, got {kernel!r}"
        )
