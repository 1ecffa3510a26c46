"""What the next training batch is: chains that grow longer, and a drill of single facts.

A chain batch has 24 solutions of one length; all their tokens count, the prompt does not. The
longest length rises by one when the last chain losses average below a threshold, up to the end.
A drill batch has 48 rows of 6 unrelated steps; only the result counts. Plain next-token training
alone would creep: the results are a twelfth of the tokens and the hardest of them.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jurax.models.language.executor import ExecutorLaw
from jurax.models.language.regchain import draw_chains
from jurax.models.language.regchain_corpus import (
    RESULT_OFFSET,
    TOKENS_PER_STEP,
    write_drill,
    write_prompts,
    write_solutions,
)


class Batch(NamedTuple):
    """Rows of tokens, and the weight of each token as a target (column 0 is never one).

    Attributes:
        tokens: int32 [R, T].
        weights: float32 [R, T].
        kind: "chain" or "drill".
    """

    tokens: np.ndarray
    weights: np.ndarray
    kind: str


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Dials of the batches of one training stage.

    Attributes:
        law: who writes the solutions.
        lengths: shortest and longest chain at the end.
        start: longest chain at the beginning.
        chain_threshold: mean chain loss below which the longest length rises.
        drill_threshold: mean drill loss below which the drill becomes rare.
        drill_shares: share of drill batches before and after.
        window: losses that enter a mean.
        patience: chain batches at least between two rises.
        chain_rows: solutions in a chain batch.
        drill_rows: rows in a drill batch.
        drill_steps: single steps in a row of the drill.
        split: problems that are used.
    """

    law: ExecutorLaw
    lengths: tuple[int, int] = (3, 7)
    start: int = 1
    chain_threshold: float = 0.35
    drill_threshold: float = 0.5
    drill_shares: tuple[float, float] = (0.4, 0.15)
    window: int = 15
    patience: int = 40
    chain_rows: int = 24
    drill_rows: int = 48
    drill_steps: int = 6
    split: str = "train"


@dataclasses.dataclass
class Progress:
    """Where a stage stands: everything that the next batch depends on, with the step's number."""

    longest: int
    batches_since_rise: int = 0
    drill_is_learnt: bool = False
    chain_losses: list[float] = dataclasses.field(default_factory=list)
    drill_losses: list[float] = dataclasses.field(default_factory=list)


def next_batch(rng: np.random.Generator, curriculum: Curriculum, progress: Progress) -> Batch:
    """Draw the next batch."""
    share = curriculum.drill_shares[int(progress.drill_is_learnt)]
    if rng.random() < share:
        return drill_batch(rng, curriculum)
    low = min(curriculum.lengths[0], max(1, progress.longest - 3))
    return chain_batch(rng, curriculum, int(rng.integers(low, progress.longest + 1)))


def chain_batch(rng: np.random.Generator, curriculum: Curriculum, length: int) -> Batch:
    """Problems with solutions; the targets are all tokens of the solutions."""
    chains = draw_chains(rng, curriculum.chain_rows, length, curriculum.split)
    prompts = write_prompts(chains)
    tokens = np.concatenate([prompts, write_solutions(rng, chains, curriculum.law)], axis=1)
    weights = np.ones(tokens.shape, np.float32)
    weights[:, : prompts.shape[1]] = 0.0
    return Batch(tokens, weights, "chain")


def drill_batch(rng: np.random.Generator, curriculum: Curriculum) -> Batch:
    """Unrelated single steps; the targets are their results."""
    tokens = write_drill(rng, curriculum.drill_rows, curriculum.drill_steps, curriculum.law)
    weights = np.zeros(tokens.shape, np.float32)
    weights[:, RESULT_OFFSET::TOKENS_PER_STEP] = 1.0
    return Batch(tokens, weights, "drill")


def observe(curriculum: Curriculum, progress: Progress, batch: Batch, loss: float) -> None:
    """Take the loss of a batch into account (changes `progress`)."""
    losses = progress.chain_losses if batch.kind == "chain" else progress.drill_losses
    losses.append(loss)
    del losses[: -curriculum.window]
    full = len(losses) == curriculum.window
    if batch.kind == "drill":
        below = sum(losses) / len(losses) < curriculum.drill_threshold
        progress.drill_is_learnt = progress.drill_is_learnt or (full and below)
        return
    progress.batches_since_rise += 1
    below = sum(losses) / len(losses) < curriculum.chain_threshold
    patient = progress.batches_since_rise >= curriculum.patience
    if full and below and patient and progress.longest < curriculum.lengths[1]:
        progress.longest += 1
        progress.batches_since_rise = 0
