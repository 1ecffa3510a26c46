"""Process: a Feynman-Kac model, a population at a time.

A process defines the measure on paths

    gamma(x_{0:T}) = M_0(x_0) G_0(x_0) prod_{t=1}^{T} M_t(x_{t-1}, x_t) G_t(x_{t-1}, x_t),

with moves M and potentials G >= 0 (Chopin and Papaspiliopoulos 2020, section 5.1). Its total mass
Z is the evidence and gamma / Z the target. A path that is *finished* is absorbed: it moves no
more and G = 1 from then on. A path that is unfinished after `num_steps` stays in the target.

Shape letters: N particles, B packed problems (absent for one problem).
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.ppl import leaves
from jurax.ppl.cost import Cost

# Entries (name, source, part): trajectories[name] is records[source] at times 1..T for the part
# "steps", at time 0 for "initial", and the final particles' source for "final".
Layout = tuple[tuple[str, str, str], ...]


class AbstractProcess(eqx.Module):
    """The interface of every process; see the module docstring for the law it defines.

    `particles` is any pytree whose array leaves start with the axes `(*B, N)`. A process of
    `batch_shape` `(B,)` packs B independent problems; its keys are arrays of B keys, and the
    result of a problem depends on its own key alone.

    Attributes:
        num_steps: upper bound T on the number of extensions.
        target: the density in words and symbols; printed by `repr` and stored with results.
        hosted: whether the process calls out of JAX; kernels then run in a plain Python loop.
    """

    num_steps: eqx.AbstractVar[int]
    target: eqx.AbstractVar[str]
    hosted: ClassVar[bool] = False

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the packed problems: `()` for one problem."""
        return ()

    @property
    def layout(self) -> "Layout | None":
        """How traced records become trajectories, see `Layout`; None: as they are."""
        return None

    @abc.abstractmethod
    def init(self, key: Array, num_particles: int) -> tuple[PyTree, Float[Array, "*B N"]]:
        """Draw x_0 ~ M_0 for every particle and return `(particles, log G_0)`; consumes `key`."""

    @abc.abstractmethod
    def extend(
        self, key: Array, particles: PyTree, t: Int[Array, "..."] | int
    ) -> tuple[PyTree, Float[Array, "*B N"]]:
        """Draw x_t ~ M_t(x_{t-1}, .) and return `(particles, log G_t)`; consumes `key`.

        Anything may be returned for rows that are finished or dead: kernels mask them.
        """

    # ------------------------------------------------------------ optional, with defaults

    def finished(self, particles: PyTree) -> Bool[Array, "*B N"]:
        """Which rows are absorbed; by default none."""
        return jnp.zeros(self.row_shape(particles), bool)

    def gather(self, particles: PyTree, ancestors: Int[Array, "*B M"]) -> PyTree:
        """Return the rows `ancestors` of every leaf; override for caches and shared storage."""
        return gather_rows(particles, ancestors)

    def where(self, mask: Bool[Array, "*B N"], new: PyTree, old: PyTree) -> PyTree:
        """Choose rows of `new` where `mask` holds, else of `old`."""
        return jax.tree.map(lambda a, b: leaves.choose(mask, a, b), new, old)

    def settle(self, mask: Bool[Array, "*B N"], new: PyTree, old: PyTree) -> PyTree:
        """`where` after an extension: rows outside `mask` will never be extended again.

        By default `where`, behind a conditional that is skipped while every row moves: a select
        would make XLA compute the move twice, once for it and once for the weights. A process with
        large scratch storage (caches) that is not read for such rows may keep the new storage.
        """
        if self.hosted:
            return self.where(mask, new, old)
        return jax.lax.cond(jnp.all(mask), lambda: new, lambda: self.where(mask, new, old))

    def retire(self, particles: PyTree, mask: Bool[Array, "*B N"]) -> PyTree:
        """Mark rows that the next extension may skip; by default nothing is marked."""
        del mask
        return particles

    def record(self, particles: PyTree, t: Int[Array, "..."] | int) -> PyTree:
        """What is stored of step t in a history; by default the particles."""
        del t
        return particles

    def output(self, particles: PyTree) -> PyTree:
        """What a posterior keeps of the final particles; by default everything."""
        return particles

    def cost(self, before: PyTree | None, after: PyTree) -> Cost:
        """What one extension spent (`before=None`: what `init` spent); by default nothing."""
        del before, after
        return Cost()

    def cost_bound(self, particles: PyTree) -> Cost:
        """An upper bound of the cost of the next extension; by default nothing."""
        del particles
        return Cost()

    def replay(self, particles: PyTree, record: PyTree, t: Int[Array, "..."] | int):
        """Make the given move: return `(particles, log_increments, log_probs)`."""
        raise missing(self, "replay", "the density of its moves")

    def prior(self) -> "AbstractProcess":
        """The same moves with every potential equal to 1."""
        raise missing(self, "prior", "its moves without the potentials")

    # ------------------------------------------------------------ helpers

    def innermost(self, particles: PyTree) -> PyTree:
        """The particles as the author of the process wrote them, without what wrappers add.

        Functions of particles that users give to kernels and combinators are called with these.
        """
        return particles

    def row_shape(self, particles: PyTree) -> tuple[int, ...]:
        """The axes `(*B, N)` of a population of this process."""
        leaf = next(x for x in jax.tree.leaves(particles) if leaves.is_array(x))
        return leaf.shape[: len(self.batch_shape) + 1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_steps={self.num_steps}, target={self.target!r})"


def missing(process: Any, method: str, what: str) -> NotImplementedError:
    """The error of a kernel that needs an optional method which `process` does not have."""
    return NotImplementedError(
        f"{type(process).__name__} does not define `{method}`: the algorithm needs {what}. "
        f"Define `{method}` on the process or choose an algorithm that does without it."
    )


def gather_rows(tree: PyTree, ancestors: Int[Array, "*B M"]) -> PyTree:
    """Return rows `ancestors` along the particle axis of every array leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> gather_rows(jnp.array([5.0, 6.0, 7.0]), jnp.array([2, 2, 0])).tolist()
        [7.0, 7.0, 5.0]
    """

    def take(leaf: Any) -> Any:
        return leaves.take(leaf, ancestors) if leaves.is_array(leaf) else leaf

    return jax.tree.map(take, tree)
