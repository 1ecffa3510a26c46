"""What the models of this folder share: a process made of a `StateSpaceModel` of their parts."""

import abc

from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl.process import AbstractProcess
from jurax.ppl.state_space import StateSpaceModel


class AbstractStateSpace(AbstractProcess):
    """A process that describes itself, for one particle, by `state_space()`."""

    @abc.abstractmethod
    def state_space(self) -> StateSpaceModel:
        """The description of one particle."""

    def init(self, key: Array, num_particles: int) -> tuple[PyTree, Float[Array, " N"]]:
        """Draw x_0; consumes `key`."""
        return self.state_space().init(key, num_particles)

    def extend(
        self, key: Array, particles: PyTree, t: Int[Array, "..."] | int
    ) -> tuple[PyTree, Float[Array, " N"]]:
        """Draw x_t and weigh it by observation t; consumes `key`."""
        return self.state_space().extend(key, particles, t)

    def replay(
        self, particles: PyTree, record: PyTree, t: Int[Array, "..."] | int
    ) -> tuple[PyTree, Float[Array, " N"], Float[Array, " N"]]:
        """Move to the states `record`, with the log-density of that move."""
        return self.state_space().replay(particles, record, t)

    def prior(self) -> StateSpaceModel:
        """The same moves without observations."""
        return self.state_space().prior()
