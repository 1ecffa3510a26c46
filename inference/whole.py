"""Algorithms on whole programs: they need the joint density of a program, not its steps."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array

from jurax.ppl import Cost, Posterior
from jurax.ppl.program import Program


class AbstractWholeProgram(eqx.Module):
    """An algorithm whose target is a bound program, with or without a scan.

    `infer` hands the program over as it is. Such an algorithm runs as one compiled piece: it has no
    progress bar, no checkpoints and no budget.
    """

    takes_programs: ClassVar[bool] = True

    @abc.abstractmethod
    def run(self, key: Array, program: Program, budget: Cost | None = None) -> Posterior:
        """Run and return the posterior; consumes `key`."""
