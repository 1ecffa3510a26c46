"""Word-level tokenizer of the RegChain suite: one word, one token.

The vocabulary has 256 words. Their ids are blocks, so that a corpus is written by arithmetic on
arrays (`regchain_corpus`): a binding `r2=8` has the id BINDING + 19 * (index of r2) + 8.

    <pad> <end> ; > # ?        special words          A B C r1 .. r8      names of values
    + - *                      operations             r1: .. r8:          definitions
    0 .. 18                    numbers                A=0 .. r8=18        bindings
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

TokenIds = Sequence[int] | Int[np.ndarray, " T"] | Int[jax.Array, " T"]

MODULUS = 19
NUM_LEAVES = 3
MAX_STEPS = 8
OPERATIONS = ("+", "-", "*")
NAMES = ("A", "B", "C", *(f"r{i + 1}" for i in range(MAX_STEPS)))

PAD, END, STEP, RESULT, ANSWER, QUERY = range(6)
OPERATION = 6
NUMBER = OPERATION + len(OPERATIONS)
NAME = NUMBER + MODULUS
DEFINITION = NAME + len(NAMES)
BINDING = DEFINITION + MAX_STEPS
VOCABULARY: tuple[str, ...] = (
    *("<pad>", "<end>", ";", ">", "#", "?"),
    *OPERATIONS,
    *(str(value) for value in range(MODULUS)),
    *NAMES,
    *(f"{name}:" for name in NAMES[NUM_LEAVES:]),
    *(f"{name}={value}" for name in NAMES for value in range(MODULUS)),
)
_IDS = {word: index for index, word in enumerate(VOCABULARY)}


def encode(text: str) -> list[int]:
    """Token ids of a text whose words are separated by blanks.

    Raises:
        ValueError: a word is not in the vocabulary; the message names it.

    Example:
        >>> encode("A=7 r1: A * A")
        [54, 39, 28, 8, 28]
        >>> decode(encode("r1: A A=7 7 * B B=12 12 > 8 r1=8 ; # 8 <end>"))
        'r1: A A=7 7 * B B=12 12 > 8 r1=8 ; # 8 <end>'
    """
    ids = []
    for position, word in enumerate(text.split()):
        if word not in _IDS:
            raise ValueError(
                f"unknown token {word!r} (word {position} of the text): RegChain has the numbers 0 "
                f"to {MODULUS - 1}, the names {', '.join(NAMES)}, their bindings as in 'r1=7', "
                "definitions as in 'r1:', and + - * ; > # ? <end> <pad>"
            )
        ids.append(_IDS[word])
    return ids


def decode(ids: TokenIds) -> str:
    """Text of token ids; padding is dropped.

    Raises:
        ValueError: an id lies outside of the vocabulary.
    """
    words = []
    for index in map(int, np.asarray(ids)):
        if not 0 <= index < len(VOCABULARY):
            raise ValueError(
                f"token id {index} is outside of the vocabulary 0..{len(VOCABULARY) - 1}"
            )
        if index != PAD:
            words.append(VOCABULARY[index])
    return " ".join(words)


def step_ends() -> list[bool]:
    """For each word of the vocabulary, whether it ends a step: `;` and `<end>` do."""
    return [index in (STEP, END) for index in range(len(VOCABULARY))]
