r"""Law of the noisy executor: a fallible writer of RegChain solutions, known exactly.

The writer copies each instruction without fault, looks up each operand (wrong, uniformly over the
18 other values, with probability `binding_error`) and draws the result from a fixed table

    p(result | x, op, y)        log_probs[op, x, y, result],  [3, 19, 19, 19]

Wrong values propagate. A share of the facts are *misconceptions*: the truth has probability
.25, one fixed wrong value .64, the rest is uniform; so samples agree on a wrong value and a
vote cannot repair it. Any other fact is wrong, uniformly, with a probability of its own, drawn
from U(0, max_slip).

A *teacher* shares a part of these misconceptions, has others of its own, and is right otherwise.
A reward model taught by it errs in both ways that matter: it shares blind spots with the policy,
and it can be exploited, since some of its own errors are wrong results that score well. The two
parts are its quality dials.
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
    _, wrong, slip = _draws(dials)
    slips = truth * (1 - slip) + (1 - truth) * slip / (MODULUS - 1)
    confused = _misconceive(dials, truth, wrong)
    probs = np.where(misconception_mask(dials)[..., None], confused, slips)
    return _law(probs, dials)


def teacher_law(
    dials: ExecutorDials = DEFAULT_DIALS, *, shared: float = 0.25, own: float = 0.2
) -> ExecutorLaw:
    """A better-taught writer, with faults of its own; it makes no slips and no binding errors.

    Args:
        dials: of the executor whose misconceptions it shares in part.
        shared: share of the executor's misconceptions that it has too. No search under a reward
            taught by it can repair these.
        own: share of the other facts that it has misconceptions of its own about, of the same
            kind. A sample that happens to slip into one scores too well, so the best of many
            samples is often a wrong one.
    """
    _check_probability("shared", shared)
    _check_probability("own", own)
    truth = np.eye(MODULUS)[truth_table()]
    rng = np.random.default_rng([8, dials.seed])
    has_shared = misconception_mask(dials) & (rng.random(truth.shape[:-1]) < shared)
    has_own = ~has_shared & (rng.random(truth.shape[:-1]) < own)
    own_wrong = np.eye(MODULUS)[_other_values(rng)]
    probs = np.where(has_own[..., None], _misconceive(dials, truth, own_wrong), truth)
    probs = np.where(has_shared[..., None], np.exp(executor_law(dials).log_probs), probs)
    return _law(probs, dataclasses.replace(dials, binding_error=0.0))


def misconception_mask(dials: ExecutorDials = DEFAULT_DIALS) -> np.ndarray:
    """Which facts are misconceptions, bool [3, 19, 19]; their number is exact."""
    order = _draws(dials)[0]
    return order < round(dials.misconceptions * order.size)


def _draws(dials: ExecutorDials) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the facts, one-hot wrong values, slip probabilities."""
    rng = np.random.default_rng([7, dials.seed])
    shape = truth_table().shape
    order = rng.permutation(np.prod(shape)).reshape(shape)
    wrong = np.eye(MODULUS)[_other_values(rng)]
    return order, wrong, rng.uniform(0, dials.max_slip, size=shape)[..., None]


def _other_values(rng: np.random.Generator) -> np.ndarray:
    """A wrong result for each fact, uniform over the 18."""
    return (truth_table() + rng.integers(1, MODULUS, size=truth_table().shape)) % MODULUS


def _misconceive(dials: ExecutorDials, truth: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Law of a misconception: truth, favoured wrong value, the rest uniform."""
    rest = 1 - dials.misconception_truth - dials.misconception_wrong
    others = (1 - truth) * (1 - wrong) * rest / (MODULUS - 2)
    return others + truth * dials.misconception_truth + wrong * dials.misconception_wrong


def _law(probs: np.ndarray, dials: ExecutorDials) -> ExecutorLaw:
    with np.errstate(divide="ignore"):
        return ExecutorLaw(np.log(probs), dials.binding_error)
