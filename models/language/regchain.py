"""RegChain, the `chain` task: straight-line programs over registers with values modulo 19.

A problem has three leaves and M instructions `r_i := x op y`; x and y are two different values
defined before, op is one of + - *. The query is the last register. Prompt and solution:

    A=7 B=12 C=3 r1: A * B r2: r1 - C ? r2
    r1: A A=7 7 * B B=12 12 > 8 r1=8 ; r2: r1 r1=8 8 - C C=3 3 > 5 r2=5 ; # 5 <end>

A step has 12 tokens: it copies its instruction, looks up each operand (a *binding* token and the
plain value), and writes the result. The answer step has three.

**Splits.** The *opening fact* of a problem is the triple (value of x, op, value of y) of `r1`. A
fixed hash sends each of the 3 * 19 * 19 = 1,083 facts to one split (train 70 %, reward 10 %,
validation 10 %, test 10 %), and a problem belongs to the split of its opening fact. So no two
splits share a problem, nor a first step. Later steps and the training drill contain all facts:
who has never seen a fact cannot know it.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from jurax.models.language.tokenizer import MAX_STEPS, MODULUS, NAMES, NUM_LEAVES, OPERATIONS

SPLITS = ("train", "reward", "validation", "test")
SPLIT_SHARES = (0.7, 0.1, 0.1, 0.1)
DEFAULT_LENGTHS = (4, 7)


class Chains(NamedTuple):
    """n programs of one length M as integer arrays.

    An operand is an index into the names A, B, C, r1, ..., r8.

    Attributes:
        leaves: int [n, 3], values of A, B, C.
        left: int [n, M], index of the first operand.
        operations: int [n, M], 0 for +, 1 for -, 2 for *.
        right: int [n, M], index of the second operand.
    """

    leaves: np.ndarray
    left: np.ndarray
    operations: np.ndarray
    right: np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem: its name, its prompt, and the truth that only a checker may read.

    Attributes:
        id: split, seed and number, as in `test-0-12`.
        prompt: text for the model.
        answer: value of the last register, as text.
        num_steps: number M of instructions (a solution has M + 1 steps with the answer).
        leaves: values of A, B, C.
        instructions: (left, operation, right) by index, one for each register.
    """

    id: str
    prompt: str
    answer: str
    num_steps: int
    leaves: tuple[int, ...]
    instructions: tuple[tuple[int, int, int], ...]


def problems(
    split: str, num_problems: int, seed: int, *, lengths: tuple[int, int] = DEFAULT_LENGTHS
) -> list[Problem]:
    """Problems of a split, different from each other, with balanced numbers of instructions.

    Problem i has length lo + (i mod (hi - lo + 1)). The same arguments give the same problems, and
    more problems with the same seed begin with the same ones.

    Args:
        split: "train", "reward" (fits reward models), "validation" (dials) or "test".
        num_problems: how many, at least 0.
        seed: any non-negative integer.
        lengths: smallest and largest number of instructions, within 1..8.

    Raises:
        ValueError: an unknown split, a negative number, or lengths outside of 1..8.

    Example:
        >>> problem = problems("test", 1, seed=0)[0]
        >>> problem.id, problem.num_steps
        ('test-0-0', 4)
    """
    check_split(split)
    low, high = check_lengths(lengths)
    if num_problems < 0:
        raise ValueError(f"num_problems is {num_problems}; expected 0 or more")
    found, seen, attempt = [], set(), 0
    while len(found) < num_problems:
        index = len(found)
        rng = np.random.default_rng([SPLITS.index(split), seed, index, attempt])
        chains = draw_chains(rng, 1, low + index % (high - low + 1), split)
        problem = to_problem(chains, 0, f"{split}-{seed}-{index}")
        attempt = attempt + 1 if problem.prompt in seen else 0
        if problem.prompt not in seen:
            seen.add(problem.prompt)
            found.append(problem)
    return found


def draw_chains(rng: np.random.Generator, num: int, length: int, split: str | None) -> Chains:
    """Random programs of one length, of one split (None: of all).

    One operand is the register before with probability .6 and any other value otherwise; the
    second is uniform over the rest; their order is random. Problems of other splits are redrawn.
    """
    chains = _draw(rng, num, length)
    wrong = np.zeros(num, bool) if split is None else splits_of(chains) != SPLITS.index(split)
    while wrong.any():
        fresh = _draw(rng, int(wrong.sum()), length)
        for old, new in zip(chains, fresh, strict=True):
            old[wrong] = new
        wrong = splits_of(chains) != SPLITS.index(str(split))
    return chains


def _draw(rng: np.random.Generator, num: int, length: int) -> Chains:
    leaves = rng.integers(MODULUS, size=(num, NUM_LEAVES))
    operations = rng.integers(len(OPERATIONS), size=(num, length))
    defined = NUM_LEAVES + np.arange(length)
    first = rng.integers(defined, size=(num, length))
    previous = (rng.random((num, length)) < 0.6) & (np.arange(length) > 0)
    first = np.where(previous, defined - 1, first)
    second = rng.integers(defined - 1, size=(num, length))
    second = second + (second >= first)
    swap = rng.random((num, length)) < 0.5
    left, right = np.where(swap, second, first), np.where(swap, first, second)
    return Chains(leaves, left, operations, right)


def splits_of(chains: Chains) -> np.ndarray:
    """Index into `SPLITS` of each program: the split of its opening fact."""
    rows = np.arange(len(chains.leaves))
    x = chains.leaves[rows, chains.left[:, 0]]
    y = chains.leaves[rows, chains.right[:, 0]]
    return fact_splits()[chains.operations[:, 0], x, y]


@functools.cache
def fact_splits() -> np.ndarray:
    """Split of each fact, int [3, 19, 19] by operation and operands; the assignment is fixed."""
    num = len(OPERATIONS) * MODULUS**2
    bounds = np.round(np.cumsum(SPLIT_SHARES) * num).astype(int)
    order = np.random.default_rng(19).permutation(num)
    table = np.searchsorted(bounds, order, side="right")
    return table.reshape(len(OPERATIONS), MODULUS, MODULUS)


def apply(operation, x, y):
    """`x op y` modulo 19 of integers or arrays.

    Example:
        >>> int(apply(2, 7, 12))
        8
    """
    return np.choose(operation, (x + y, x - y, x * y)) % MODULUS


def execute(chains: Chains) -> np.ndarray:
    """True values of all names, int [n, 3 + M]."""
    values = np.concatenate([chains.leaves, np.zeros_like(chains.left)], axis=1)
    for step in range(chains.left.shape[1]):
        x = np.take_along_axis(values, chains.left[:, step, None], axis=1)[:, 0]
        y = np.take_along_axis(values, chains.right[:, step, None], axis=1)[:, 0]
        values[:, NUM_LEAVES + step] = apply(chains.operations[:, step], x, y)
    return values


def to_problem(chains: Chains, row: int, name: str) -> Problem:
    """Row `row` of the arrays as a `Problem`."""
    leaves = tuple(map(int, chains.leaves[row]))
    columns = (chains.left[row], chains.operations[row], chains.right[row])
    instructions = tuple((int(x), int(op), int(y)) for x, op, y in zip(*columns, strict=True))
    one = Chains(*(array[row : row + 1] for array in chains))
    answer = str(int(execute(one)[0, -1]))
    return Problem(
        name, _prompt(leaves, instructions), answer, len(instructions), leaves, instructions
    )


def to_chains(problem: Problem) -> Chains:
    """The arrays of one problem, n = 1."""
    left, operations, right = np.array(problem.instructions).T
    return Chains(np.array([problem.leaves]), left[None], operations[None], right[None])


def _prompt(leaves: tuple[int, ...], instructions: tuple[tuple[int, int, int], ...]) -> str:
    words = [f"{name}={value}" for name, value in zip(NAMES, leaves, strict=False)]
    for index, (left, operation, right) in enumerate(instructions):
        name = NAMES[NUM_LEAVES + index]
        words.append(f"{name}: {NAMES[left]} {OPERATIONS[operation]} {NAMES[right]}")
    return " ".join([*words, "?", NAMES[NUM_LEAVES + len(instructions) - 1]])


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")


def check_lengths(lengths: tuple[int, int]) -> tuple[int, int]:
    """Return (low, high), or raise ValueError unless 1 <= low <= high <= 8."""
    low, high = lengths
    if not 1 <= low <= high <= MAX_STEPS:
        raise ValueError(f"lengths is {lengths}; expected 1 <= low <= high <= {MAX_STEPS}")
    return low, high
