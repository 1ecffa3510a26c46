"""One entry point: `infer(key, target, algorithm)`."""

import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from jurax.inference import stepwise
from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import AbstractProcess, Cost, Posterior
from jurax.ppl.cost import is_stated
from jurax.ppl.population import INVALID, INVALID_OUT_OF_BUDGET, NO_START
from jurax.ppl.program import Program
from jurax.ppl.sequential import SequentialProgram


def infer(
    key: Any,
    target: Any,
    algorithm: Any,
    *,
    budget: Cost | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    throw: bool = True,
) -> Posterior:
    """Run `algorithm` on `target` and return its posterior.

    For a traceable target this is a pure function: it may be jitted, mapped over keys and sharded.
    With `progress` or `checkpoint`, and for hosted targets, the same steps run one by one.

    Args:
        key: typed JAX key (an array of keys for packed problems, one for each); consumed. An
            integer key for packed problems is split.
        target: a process, or a NumPyro program bound by `jurax.ppl.bind`.
        algorithm: such as `ParticleFilter(num_particles=1024)`.
        budget: what may be spent on each problem, in counts (`decoded_tokens`, `reward_calls`, ...;
            seconds are refused: they are known to the host only, after the run). Steps that might
            exceed it are not made; the posterior then holds what was reached, and its status says
            so. Samplers of populations
            have budgets, bars and checkpoints; chains (MCMC, NUTS, SVI, parallel tempering,
            particle Gibbs, PIMH, PMMH) run as one compiled piece and refuse them.
        progress: show a progress bar.
        checkpoint: file that keeps the state after every step; an interrupted run resumes from it
            and ends with the same result. Removed at the end.
        throw: raise where a potential was NaN or +inf. Otherwise the status reports it.

    Raises:
        TypeError: if `target` is not a process or bound program, or `algorithm` not an algorithm.
        ValueError: if a potential was NaN or +inf and `throw` is set.
    """
    if isinstance(algorithm, type) or not hasattr(algorithm, "run"):
        raise TypeError(
            f"algorithm must be an algorithm such as ParticleFilter(num_particles=100), "
            f"got {algorithm!r}; a bare kernel makes single steps: use its init and step"
        )
    process = as_target(target, algorithm)
    key = check_key(key, process)
    check_steps(algorithm, process, budget, progress or checkpoint is not None)
    started = time.perf_counter()
    if getattr(process, "hosted", False) or progress or checkpoint is not None:
        posterior = stepwise.run(
            key, process, algorithm, budget=budget, progress=progress, checkpoint=checkpoint
        )
    elif isinstance(key, jax.core.Tracer):
        posterior = algorithm.run(key, process, budget)
    else:
        posterior = _compiled(key, process, algorithm, budget)
    return finish(posterior, started, throw)


@eqx.filter_jit
def _compiled(key: Array, process: AbstractProcess | Program, algorithm: Any, budget: Cost | None):
    return algorithm.run(key, process, budget)


def check_steps(algorithm: Any, process: Any, budget: Cost | None, by_step: bool) -> None:
    """Refuse bars, checkpoints and budgets of algorithms that are one compiled piece."""
    check_budget_entries(budget)
    if budget is not None and not getattr(algorithm, "has_budget", True):
        raise NotImplementedError(
            f"{type(algorithm).__name__} has no budget: what its inner populations spend is not "
            "counted; bound num_particles of both populations instead"
        )
    if hasattr(algorithm, "conclude"):  # the steps of a sampler are run one by one
        return
    by_step = by_step and not getattr(process, "hosted", False)
    if by_step or (budget is not None and isinstance(algorithm, AbstractWholeProgram)):
        raise ValueError(
            f"{type(algorithm).__name__} runs as one compiled piece and has neither a progress bar "
            "nor checkpoints nor a budget: leave out progress, checkpoint and budget. Long runs "
            "are split into calls with keys of their own (chains are independent), each saved by "
            "`posterior.save`"
        )


def check_budget_entries(budget: Any) -> None:
    """Refuse what is no budget of counts."""
    if budget is None:
        return
    if not isinstance(budget, Cost):
        raise TypeError(
            f"budget must be a Cost, for instance Cost(decoded_tokens=1000), got {budget!r}"
        )
    if is_stated(budget.seconds):
        raise ValueError(
            "a budget of seconds cannot be kept: a compiled run does not see the clock. State "
            "decoded_tokens, reward_tokens, reward_calls or sequential_passes"
        )


def as_target(target: Any, algorithm: Any) -> Any:
    """What the algorithm works on: a whole program where it takes one, else a process."""
    if not getattr(algorithm, "takes_programs", False):
        return as_process(target)
    if isinstance(target, SequentialProgram):
        return target.program
    if isinstance(target, Program):
        return target
    if getattr(algorithm, "takes_processes", False):
        return as_process(target)
    raise TypeError(
        f"{type(algorithm).__name__} works on the joint density of a whole program: pass "
        f"jurax.ppl.bind(model, ...), got {type(target).__name__}"
    )


def as_process(target: Any) -> AbstractProcess:
    """The process of a target; a bound program becomes one by its scan."""
    if isinstance(target, AbstractProcess):
        return target
    if hasattr(target, "process"):
        return target.process()
    raise TypeError(
        f"target must be a process or a program bound by jurax.ppl.bind(model, ...), got "
        f"{type(target).__name__}"
    )


def check_key(key: Any, process: AbstractProcess | Program) -> Array:
    """A typed key of the batch shape of the process."""
    if not (isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError("key must be a typed key, for instance jax.random.key(0)")
    batch_shape = getattr(process, "batch_shape", ())
    if key.shape == () and batch_shape:
        return jax.random.split(key, batch_shape)
    if key.shape != batch_shape:
        raise ValueError(
            f"key has shape {key.shape}; this target packs problems of shape "
            f"{batch_shape} and takes one key for each, or a single key to split"
        )
    return key


def finish(posterior: Posterior, started: float, throw: bool) -> Posterior:
    """Add what only the host knows: seconds, and whether a potential was invalid."""
    status = posterior.info.get("status")
    if status is None or isinstance(status, jax.core.Tracer):
        return posterior
    jax.block_until_ready(posterior.log_weights)
    if throw and bool(((status == INVALID) | (status == INVALID_OUT_OF_BUDGET)).any()):
        raise ValueError(
            "a potential (reward) was NaN or +inf. Potentials must be finite or zero "
            "(log-increment -inf). Mend the potential, or pass throw=False to give such particles "
            "weight zero and see them in posterior.status"
        )
    if throw and bool((status == NO_START).any()):
        raise ValueError(
            "no point with a finite log density and gradient was found in 100 tries for each "
            "chain: look for NaN or infinite data, for observations outside of the support of "
            "their distribution, and for a prior that excludes the data; throw=False returns the "
            "chains as they are"
        )
    seconds = time.perf_counter() - started
    return eqx.tree_at(lambda p: p.cost.seconds, posterior, seconds)
