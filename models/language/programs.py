"""RegChain prompts as arrays: what the executor and the dialled reward know of a problem.

Shape letters: B problems.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jurax.models.language import tokenizer
from jurax.models.language.executor import truth_table
from jurax.models.language.tokenizer import MAX_STEPS, NAMES, NUM_LEAVES, OPERATIONS

NUM_NAMES = len(NAMES)
EXAMPLE = "A=7 B=12 C=3 r1: A * B r2: r1 - C ? r2"
Instruction = tuple[int, int, int]


class Programs(eqx.Module):
    """B programs, padded to 8 instructions; operands are indices into A, B, C, r1, ..., r8.

    Attributes:
        leaves: values of A, B, C.
        left: first operand of each instruction.
        operation: 0 for +, 1 for -, 2 for *.
        right: second operand.
        num_instructions: M.
    """

    leaves: Int[Array, "*B 3"]
    left: Int[Array, "*B 8"]
    operation: Int[Array, "*B 8"]
    right: Int[Array, "*B 8"]
    num_instructions: Int[Array, "*B"]

    @property
    def prompt_lengths(self) -> Int[Array, "*B"]:
        """Tokens of the prompts, 5 + 4 M."""
        return 5 + 4 * self.num_instructions

    def per_row(self, num_rows: int) -> "Programs":
        """The program of each of `num_rows` = B N rows."""
        repeats = num_rows // self.leaves.shape[0]
        return jax.tree.map(lambda x: jnp.repeat(x, repeats, axis=0), self)


def encode_programs(prompts: list[str]) -> Programs:
    """Parse prompts; host code.

    Raises:
        ValueError: a word is unknown, or a prompt is no RegChain problem; the message names it.

    Example:
        >>> programs = encode_programs([EXAMPLE])
        >>> programs.leaves.tolist(), programs.num_instructions.tolist()
        ([[7, 12, 3]], [2])
    """
    leaves = np.zeros((len(prompts), NUM_LEAVES), np.int32)
    columns = np.zeros((3, len(prompts), MAX_STEPS), np.int32)
    lengths = np.zeros(len(prompts), np.int32)
    for i, prompt in enumerate(prompts):
        tokenizer.encode(prompt)  # reports an unknown word
        try:
            leaves[i], instructions = parse(prompt)
        except ValueError as error:
            raise ValueError(
                f"prompt {i} is no RegChain problem: {error}. Expected a text like {EXAMPLE!r}, "
                f"with 1 to {MAX_STEPS} instructions; got {prompt!r}"
            ) from error
        lengths[i] = len(instructions)
        columns[:, i, : len(instructions)] = np.transpose(instructions)
    left, operation, right = map(jnp.asarray, columns)
    return Programs(jnp.asarray(leaves), left, operation, right, jnp.asarray(lengths))


@functools.lru_cache(maxsize=8192)
def parse(prompt: str) -> tuple[tuple[int, ...], tuple[Instruction, ...]]:
    """Leaves and instructions (left, operation, right) of a prompt; remembered.

    Raises:
        ValueError: the prompt is no RegChain problem.
    """
    words = prompt.split()
    num = (len(words) - NUM_LEAVES - 2) // 4
    _require(len(words) == NUM_LEAVES + 2 + 4 * num, f"it has {len(words)} words, not 5 + 4 M")
    _require(1 <= num <= MAX_STEPS, f"it has {num} instructions")
    leaves = tuple(_leaf(words[i], NAMES[i]) for i in range(NUM_LEAVES))
    steps = [words[NUM_LEAVES + 4 * i : NUM_LEAVES + 4 * (i + 1)] for i in range(num)]
    query = ["?", NAMES[NUM_LEAVES + num - 1]]
    _require(words[-2:] == query, f"it ends in {' '.join(words[-2:])!r}, not {' '.join(query)!r}")
    return leaves, tuple(_instruction(step, NUM_LEAVES + i) for i, step in enumerate(steps))


def _leaf(word: str, name: str) -> int:
    _require(word.startswith(f"{name}="), f"its word {word!r} does not give the value of {name}")
    return int(word.partition("=")[2])


def _instruction(words: list[str], register: int) -> Instruction:
    definition, left, operation, right = words
    text, name = " ".join(words), NAMES[register]
    _require(definition == f"{name}:", f"{text!r} does not define {name}")
    _require(operation in OPERATIONS, f"{text!r} has no operation + - *")
    for operand in (left, right):
        _require(operand in NAMES[:register], f"{text!r} uses {operand!r} before its definition")
    return NAMES.index(left), OPERATIONS.index(operation), NAMES.index(right)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def compute(
    operation: Int[Array, "*R"], x: Int[Array, "*R"], y: Int[Array, "*R"]
) -> Int[Array, "*R"]:
    """True result of a fact, by table.

    Example:
        >>> int(compute(jnp.array(2), jnp.array(7), jnp.array(12)))
        8
    """
    return jnp.asarray(truth_table(), jnp.int32)[operation, x, y]


def run(
    program: Programs, values: Int[Array, " 11"], num_known: Int[Array, ""]
) -> Int[Array, " 11"]:
    """Execute one program without fault, given the first `num_known` values (leaves included)."""

    def execute(i: Array, values: Array) -> Array:
        x, y = values[program.left[i]], values[program.right[i]]
        result = compute(program.operation[i], x, y)
        due = (NUM_LEAVES + i >= num_known) & (i < program.num_instructions)
        slot = NUM_LEAVES + i
        return values.at[slot].set(jnp.where(due, result, values[slot]))

    return jax.lax.fori_loop(0, MAX_STEPS, execute, values)


def start_values(program: Programs) -> Int[Array, " 11"]:
    """Values of one program before its first step: the leaves, and 0 for the registers."""
    return jnp.zeros(NUM_NAMES, jnp.int32).at[:NUM_LEAVES].set(program.leaves)
