r"""Law of the noisy executor: a fallible writer of RegChain solutions, known exactly.

The writer copies each instruction without fault, looks up each operand (wrong, uniformly over the
18 other values, with probability `binding_error`) and draws the result from a fixed table

    p(result | x, op, y)        log_probs[op, x, y, result],  [3, 19, 19, 19]

Wrong values propagate. A share of the facts are *misconceptions*: the truth has probability
.25, one fixed wrong value .64, the rest is uniform; so samples agree on a wrong value and a
vote cannot repair it. Any other fact is wrong, uniformly, with a probability drawn from U(0, max_slip).

A *teacher* has the same binding errors and only part of the misconceptions, and no slips. A reward
model taught by it is better than the policy, and imperfect: that part is its quality dial.
"""

import dataclasses

import numpy as np

from jurax.models.language.regchain import apply
from jurax.models.language.tokenizer import MODULUS, OPERATIONS


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a number in [0, 1]")


@dataclasses.dataclass(frozen=True)
class ExecutorDials:
    """Dials of the error law.

    Attributes:
        misconceptions: share of the facts that are misconceptions.
        misconception_truth: probability of the truth in a misconception.
        misconception_wrong: probability of its one favoured wrong value.
        max_slip: the other facts are wrong with a probability drawn from U(0, max_slip).
        binding_error: probability that the look-up of one operand is wrong.
        seed: draws the table.
    """

    misconceptions: float = 0.12
    misconception_truth: float = 0.25
    misconception_wrong: float = 0.64
    max_slip: float = 0.14
    binding_error: float = 0.02
    seed: int = 0

    def __post_init__(self):
        for name in ("misconceptions", "misconception_truth", "misconception_wrong", "max_slip"):
            _check_probability(name, getattr(self, name))
        _check_probability("binding_error", self.binding_error)
        _check_probability(
            "misconception_truth + misconception_wrong",
            self.misconception_truth + self.misconception_wrong,
        )


DEFAULT_DIALS = ExecutorDials()


@dataclasses.dataclass(frozen=True)
class ExecutorLaw:
    """An error law as arrays.

    Attributes:
        log_probs: [3, 19, 19, 19], log p(result | op, x, y); -inf where impossible.
        binding_error: probability that the look-up of one operand is wrong.
    """

    log_probs: np.ndarray
    binding_error: float


def truth_table() -> np.ndarray:
    """Results of all facts, int [3, 19, 19]."""
    op, x, y = np.indices((len(OPERATIONS), MODULUS, MODULUS))
    return apply(op, x, y)


def clean_law() -> ExecutorLaw:
    """The law of a writer without faults."""
    with np.errstate(divide="ignore"):
        return ExecutorLaw(np.log(np.eye(MODULUS)[truth_table()]), 0.0)


def executor_law(dials: ExecutorDials = DEFAULT_DIALS) -> ExecutorLaw:
    """The law of the noisy executor with the given dials.

    Example:
        >>> law = executor_law()
        >>> truth = np.take_along_axis(np.exp(law.log_probs), truth_table()[..., None], axis=-1)
        >>> bool(0.8 < truth.mean() < 0.9)
        True
    """
    truth = np.eye(MODULUS)[truth_table()]
    _, wrong, slip, _ = _draws(dials)
    slips = truth * (1 - slip) + (1 - truth) * slip / (MODULUS - 1)
    rest = 1 - dials.misconception_truth - dials.misconception_wrong
    confused = (1 - truth) * (1 - wrong) * rest / (MODULUS - 2)
    confused += truth * dials.misconception_truth + wrong * dials.misconception_wrong
    probs = np.where(misconception_mask(dials)[..., None], confused, slips)
    return _law(probs, dials)


def teacher_law(
    dials: ExecutorDials = DEFAULT_DIALS, *, shared: float = 0.5, binding_error: float = 0.0
) -> ExecutorLaw:
    """A better-taught writer: it has a share `shared` of the misconceptions and is right otherwise."""
    _check_probability("shared", shared)
    truth = np.eye(MODULUS)[truth_table()]
    mask = misconception_mask(dials) & (_draws(dials)[3] < shared)
    confused = np.exp(executor_law(dials).log_probs)
    probs = np.where(mask[..., None], confused, truth)
    return _law(probs, dataclasses.replace(dials, binding_error=binding_error))


def misconception_mask(dials: ExecutorDials = DEFAULT_DIALS) -> np.ndarray:
    """Which facts are misconceptions, bool [3, 19, 19]; their number is exact."""
    order = _draws(dials)[0]
    return order < round(dials.misconceptions * order.size)


def _draws(dials: ExecutorDials) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Order of the facts, one-hot wrong values, slip probabilities, order of the shared ones."""
    rng = np.random.default_rng([7, dials.seed])
    truth = truth_table()
    order = rng.permutation(truth.size).reshape(truth.shape)
    wrong = (truth + rng.integers(1, MODULUS, size=truth.shape)) % MODULUS
    slip = rng.uniform(0, dials.max_slip, size=truth.shape)[..., None]
    return order, np.eye(MODULUS)[wrong], slip, rng.random(truth.shape)


def _law(probs: np.ndarray, dials: ExecutorDials) -> ExecutorLaw:
    with np.errstate(divide="ignore"):
        return ExecutorLaw(np.log(probs), dials.binding_error)

