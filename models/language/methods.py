"""The methods of `jurax solve` and `jurax demo`: four ways to answer with one language model.

    greedy            one solution, the most probable token at a time
    majority          N samples, one vote each
    best_of_n         the same N samples, the answer of the best-rewarded one
    particle_filter   N particles under the reward, resampled as they go; a weighted vote

Each problem has its own key, made of the seed, its id and its prompt. Results therefore depend
neither on the order of problems nor on how they are packed into batches (up to near ties of the
rounded logits). No method reads the true answer.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jurax.inference import BestOfN, ParticleFilter, SelfConsistency, infer
from jurax.models.language.model import AbstractLanguageModel, AbstractReward
from jurax.models.language.questions import Question
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.reward_targets import check_target
from jurax.ppl import Posterior
from jurax.ppl.checks import at_least

# How the shipped reward enters the particle filter; chosen on validation problems.
REWARD_TARGET = "odds"

ALGORITHMS: dict[str, Callable] = {
    "greedy": lambda num_particles: SelfConsistency(num_particles=1, history=False),
    "majority": lambda num_particles: SelfConsistency(num_particles, history=False),
    "best_of_n": lambda num_particles: BestOfN(num_particles, history=False),
    "particle_filter": lambda num_particles: ParticleFilter(num_particles, history=False),
}
METHODS = tuple(ALGORITHMS)
WITHOUT_REWARD = ("greedy", "majority")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method with what determines its result.

    Args:
        method: one of `METHODS`.
        num_particles: samples or particles of each problem; greedy takes one.
        seed: of all random draws.
        reward_target: how the reward enters the particle filter.
        strength: exponent of the reward; None takes what is stored with it.

    Raises:
        ValueError: for an unknown method or reward target, less than one particle, or a negative
            seed.
    """

    method: str
    num_particles: int = 16
    seed: int = 0
    reward_target: str = REWARD_TARGET
    strength: float | None = None

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; expected one of {', '.join(METHODS)}")
        at_least(1, num_particles=self.num_particles)
        at_least(0, seed=self.seed)
        check_target(self.reward_target)

    @property
    def num_samples(self) -> int:
        """Samples or particles that are really drawn."""
        return 1 if self.method == "greedy" else self.num_particles


def process_of(
    setting: Setting,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    prompts: list[str],
) -> Reasoning:
    """The target of a method: with the reward where the method evaluates it."""
    if setting.method in WITHOUT_REWARD:
        temperature = 0.0 if setting.method == "greedy" else 1.0
        return Reasoning(model, None, prompts, temperature=temperature)
    return Reasoning(
        model,
        reward,
        prompts,
        reward_target=setting.reward_target,
        strength=setting.strength,
    )


def run_method(
    setting: Setting,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    questions: Sequence[Question],
) -> tuple[Reasoning, Posterior]:
    """Run a method on a pack of problems.

    Returns:
        The process and its packed posterior. Invalid potentials are reported in its status.
    """
    process = process_of(setting, model, reward, [question.prompt for question in questions])
    algorithm = ALGORITHMS[setting.method](setting.num_particles)
    keys = problem_keys(setting.seed, questions)
    return process, infer(keys, process, algorithm, throw=False)


def problem_keys(seed: int, questions: Sequence[Question]) -> Key[Array, " B"]:
    """One key for each problem: the seed's, folded with 64 bits of a hash of id and prompt."""
    words = np.array([hash_words(question) for question in questions], np.uint32)

    def fold(word: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), word[0]), word[1])

    return jax.vmap(fold)(jnp.asarray(words))


def hash_words(question: Question) -> list[int]:
    """Two 32-bit words that stay the same from run to run.

    Example:
        >>> hash_words(Question("1", "A=7 ? A")) == hash_words(Question("2", "A=7 ? A"))
        False
    """
    digest = hashlib.sha256(f"{question.id}\0{question.prompt}".encode()).digest()
    return [int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")]
