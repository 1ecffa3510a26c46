"""Corpora for training: RegChain texts as token arrays, written by an error law.

All rows of an array have one length, so nothing is padded. The loops run over the M steps of a
program; everything else is array arithmetic (some 10^5 solutions a second).
"""

import numpy as np

from jurax.models.language.executor import ExecutorLaw
from jurax.models.language.regchain import Chains
from jurax.models.language.tokenizer import (
    ANSWER,
    BINDING,
    DEFINITION,
    END,
    MAX_STEPS,
    MODULUS,
    NAME,
    NUM_LEAVES,
    NUMBER,
    OPERATION,
    OPERATIONS,
    QUERY,
    RESULT,
    STEP,
)

TOKENS_PER_STEP = 12
RESULT_OFFSET = 9  # position of the result inside a step


def write_prompts(chains: Chains) -> np.ndarray:
    """Prompts as token ids, int32 [n, 5 + 4 M]."""
    num, length = chains.left.shape
    leaves = bind(np.arange(NUM_LEAVES), chains.leaves)
    definitions = np.broadcast_to(DEFINITION + np.arange(length), (num, length))
    columns = (definitions, NAME + chains.left, OPERATION + chains.operations, NAME + chains.right)
    instructions = np.stack(columns, axis=-1).reshape(num, -1)
    query = np.broadcast_to([QUERY, NAME + NUM_LEAVES + length - 1], (num, 2))
    return np.concatenate([leaves, instructions, query], axis=1).astype(np.int32)


def write_solutions(rng: np.random.Generator, chains: Chains, law: ExecutorLaw) -> np.ndarray:
    """Solutions as token ids, int32 [n, 12 M + 3]; wrong values propagate."""
    num, length = chains.left.shape
    values = np.concatenate([chains.leaves, np.zeros_like(chains.left)], axis=1)
    cumulative = np.cumsum(np.exp(law.log_probs), axis=-1)
    steps = []
    for step in range(length):
        names = (chains.left[:, step], chains.right[:, step])
        x, y = (_look_up(rng, values, name, law.binding_error) for name in names)
        operation = chains.operations[:, step]
        result = draw_results(rng, cumulative, operation, x, y)
        register = np.full(num, NUM_LEAVES + step)
        values[:, NUM_LEAVES + step] = result
        steps.append(write_step(register, names[0], x, operation, names[1], y, result))
    answer = [np.full(num, ANSWER), NUMBER + values[:, -1], np.full(num, END)]
    return np.concatenate([*steps, np.stack(answer, axis=1)], axis=1).astype(np.int32)


def write_drill(rng: np.random.Generator, num: int, num_steps: int, law: ExecutorLaw) -> np.ndarray:
    """Rows of unrelated single steps with uniform facts, int32 [num, 12 num_steps]."""
    shape = (num * num_steps,)
    register = rng.integers(NUM_LEAVES, NUM_LEAVES + MAX_STEPS, size=shape)
    left, right = rng.integers(0, register), rng.integers(0, register - 1)
    right = right + (right >= left)
    x, y = (rng.integers(MODULUS, size=shape) for _ in range(2))
    operation = rng.integers(len(OPERATIONS), size=shape)
    result = draw_results(rng, np.cumsum(np.exp(law.log_probs), axis=-1), operation, x, y)
    steps = write_step(register, left, x, operation, right, y, result)
    return steps.reshape(num, -1).astype(np.int32)


def write_step(register, left, x, operation, right, y, result) -> np.ndarray:
    """Token ids of one step `r2: r1 r1=7 7 * B B=12 12 > 8 r2=8 ;` for each row, int [n, 12]."""
    columns = (
        DEFINITION + register - NUM_LEAVES,
        *(NAME + left, bind(left, x), NUMBER + x),
        OPERATION + operation,
        *(NAME + right, bind(right, y), NUMBER + y),
        np.full_like(x, RESULT),
        *(NUMBER + result, bind(register, result)),
        np.full_like(x, STEP),
    )
    return np.stack(columns, axis=-1)


def bind(name, value):
    """Id of the binding token `name=value`.

    Example:
        >>> from jurax.models.language.tokenizer import decode
        >>> decode([bind(3, 7)])
        'r1=7'
    """
    return BINDING + MODULUS * name + value


def draw_results(rng, cumulative: np.ndarray, operation, x, y) -> np.ndarray:
    """One result for each row, by inversion of the cumulative table [3, 19, 19, 19]."""
    uniform = rng.random(np.shape(x))[..., None]
    # The last cumulative value may round below 1: it is left out, so the result is at most 18.
    return (uniform >= cumulative[operation, x, y, :-1]).sum(axis=-1)


def _look_up(rng, values: np.ndarray, name: np.ndarray, binding_error: float) -> np.ndarray:
    value = np.take_along_axis(values, name[:, None], axis=1)[:, 0]
    wrong = rng.random(value.shape) < binding_error
    return np.where(wrong, (value + rng.integers(1, MODULUS, size=value.shape)) % MODULUS, value)
