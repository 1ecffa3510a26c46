"""What the samplers share: a number of particles, the kernel of one step, the run to the end."""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.inference.compose import step_key
from jurax.inference.kernel import AbstractKernel
from jurax.inference.loop import Run, Storage, run_steps
from jurax.ppl import AbstractProcess, Cost, History, Population, Posterior, random

HISTORY_LIMIT = 64 * 2**20  # bytes kept without being asked


class AbstractSampler(AbstractKernel):
    """A kernel that also knows how to run to the end of a process and report a posterior."""

    num_particles: eqx.AbstractVar[int]
    history: eqx.AbstractVar[bool | None]
    has_budget: ClassVar[bool] = True  # False where not everything that is spent is counted

    @property
    @abc.abstractmethod
    def kernel(self) -> AbstractKernel:
        """The kernel of one step."""

    def step(self, key, population, process):
        """One step of the sampler, for a population that the caller keeps."""
        return self.kernel.step(key, population, process)

    def idle_info(self, population):
        """The idle info of the kernel."""
        return self.kernel.idle_info(population)

    def prepare(self, process: Any) -> AbstractProcess:
        """The process that is run; by default the one that is given.

        Samplers that set `takes_programs` are given bound programs and make a process of them.
        """
        return process

    def run(self, key: Array, process: Any, budget: Cost | None = None) -> Posterior:
        """Start, step to the end and return the posterior; consumes `key`."""
        process = self.prepare(process)
        key_init, key_steps = random.split(key)
        population = self.init(key_init, process, self.num_particles)
        run = run_steps(
            self.kernel,
            key_steps,
            population,
            process,
            storage=self.storage(population, process),
            budget=budget,
        )
        return self.conclude(key_steps, run, process)

    def conclude(self, key_steps: Array, run: Run, process: AbstractProcess) -> Posterior:
        """What follows the last step; draws by `final_key(key_steps, process)`."""
        del key_steps
        return self.report(run, process)

    def report(self, run: Run, process: AbstractProcess) -> Posterior:
        """The posterior of a finished run."""
        return posterior_of(run, process, process.target)

    def record(self, population: Population, process: AbstractProcess) -> PyTree:
        """What a history stores of a step; by default the record of the process."""
        return process.record(population.particles, population.time)

    def storage(self, population: Population, process: AbstractProcess) -> Storage:
        """What is kept of every step: what was asked for, and what is small.

        Ancestors take 4 N T bytes and give the standard errors of read-outs and the genealogy; like
        the records they are kept without being asked up to `HISTORY_LIMIT`.
        """
        ancestors = 4 * math.prod(population.log_weights.shape) * (process.num_steps + 1)
        history = self.history
        if history is None:
            records = self._record_bytes(population, process)
            history = ancestors + records <= HISTORY_LIMIT
        return Storage(
            record=self.record if history else None,
            ancestors=history or ancestors <= HISTORY_LIMIT,
        )

    def _record_bytes(self, population: Population, process: AbstractProcess) -> int:
        """Memory of the records of a whole run."""
        record = lambda population: self.record(population, process)  # noqa: E731
        shapes = record(population) if process.hosted else jax.eval_shape(record, population)
        per_step = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
        return (process.num_steps + 1) * per_step


def final_key(key_steps: Array, process: AbstractProcess) -> Array:
    """The key of what follows the last step, given the key that steps fold their time into."""
    return step_key(key_steps, process.num_steps)


def posterior_of(run: Run, process: AbstractProcess, target: str) -> Posterior:
    """Collect a finished run into a posterior."""
    population = run.population
    history = None
    if run.records is not None:
        ancestors = run.info.get("ancestors")
        history = History(records=run.records, ancestors=ancestors, layout=process.layout)
    return Posterior(
        particles=process.output(population.particles),
        log_weights=population.log_weights,
        log_evidence=population.log_evidence_estimate,
        info={**run.info, "num_steps": population.time, "status": population.status},
        cost=run.cost,
        history=history,
        target=target,
    )


def as_heuristic(posterior: Posterior, log_weights: Float[Array, "*B N"]) -> Posterior:
    """The same particles under other weights; no evidence is estimated."""
    return Posterior(
        particles=posterior.particles,
        log_weights=log_weights,
        log_evidence=jnp.full_like(posterior.log_evidence, jnp.nan),
        info=posterior.info,
        cost=posterior.cost,
        history=posterior.history,
        target=posterior.target,
    )
