"""Samples of a policy on RegChain problems, scored by a reward and labelled by the checker.

The raw material of `calibrate` (strengths of a reward) and `gates` (what shipped weights must
pass). Only these read the truth; no method of the main job does.

Shape letters: B problems, N samples of each, T steps.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from rich.progress import track

from jurax.inference import BestOfN, infer
from jurax.models.language.model import AbstractLanguageModel, AbstractReward
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.regchain import Problem
from jurax.models.language.regchain_check import liveness


@dataclasses.dataclass(frozen=True)
class Samples:
    """Labelled samples.

    Attributes:
        scores: log-odds of the reward after each step, NaN where no step was made.
        live: whether the prefix after the step can still end in the right answer.
        right: finished with the right answer.
        answers: text, or None where there is no answer.
    """

    scores: Float[np.ndarray, "B N T"]
    live: Bool[np.ndarray, "B N T"]
    right: Bool[np.ndarray, "B N"]
    answers: np.ndarray

    @property
    def exists(self) -> Bool[np.ndarray, "B N T"]:
        """Steps that were made."""
        return ~np.isnan(self.scores)

    @property
    def final_scores(self) -> Float[np.ndarray, "B N"]:
        """The score after the last step."""
        last = np.maximum(self.exists.sum(axis=-1) - 1, 0)
        return np.take_along_axis(self.scores, last[..., None], axis=-1)[..., 0]


def draw(
    key: Array,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    problems: Sequence[Problem],
    num_samples: int,
    *,
    batch: int = 25,
) -> Samples:
    """Sample at temperature 1 and label every prefix; consumes `key` (folded by batch).

    Problems of one length run together, `batch` at a time, since rows of a batch wait for the
    longest; the result is in the order of `problems`.
    """
    order = np.argsort([p.num_steps for p in problems], kind="stable")
    found: list = [None] * len(problems)
    for i in track(range(0, len(problems), batch), "sampling"):
        rows = np.resize(order[i : i + batch], batch)  # the last batch is filled up by repetition
        prompts = [problems[row].prompt for row in rows]
        process = Reasoning(model, reward, prompts, reward_target="odds", strength=1.0)
        keys = jax.random.split(jax.random.fold_in(key, i), batch)
        posterior = infer(keys, process, BestOfN(num_samples, history=False))
        particles = jax.tree.map(np.asarray, posterior.particles)
        for place, row in enumerate(rows):
            one = {name: x[place] for name, x in particles.items()}
            found[row] = label(process, problems[row], one)
    return Samples(*(np.stack(x) for x in zip(*found, strict=True)))


def label(process: Reasoning, problem: Problem, particles: dict) -> tuple:
    """Scores, liveness, rightness and answers of the samples of one problem."""
    scores = particles["log_odds"]
    live = np.zeros(scores.shape, bool)
    answers = np.full(len(scores), None, object)
    for n in range(len(scores)):
        row = {name: x[n] for name, x in particles.items()}
        answers[n] = process.answer(row)
        for t, prefix in enumerate(prefixes(process.text(row))[: scores.shape[1]]):
            live[n, t] = liveness(problem, prefix)
    return scores, live, answers == problem.answer, answers


def prefixes(text: str) -> list[str]:
    """The text up to each step end.

    Example:
        >>> prefixes("a ; b ; # 1 <end>")
        ['a ;', 'a ; b ;', 'a ; b ; # 1 <end>']
    """
    words = text.split()
    ends = [i + 1 for i, word in enumerate(words) if word in (";", "<end>")]
    return [" ".join(words[:end]) for end in ends]
