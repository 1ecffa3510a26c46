"""Traceable liveness against the checker, word by word, on executor solutions and damaged ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.models.language import tokenizer
from jurax.models.language.executor import ExecutorDials, executor_law
from jurax.models.language.liveness import is_live, read, start_trace, stated_value
from jurax.models.language.programs import EXAMPLE, encode_programs, parse
from jurax.models.language.regchain import Problem, problems, to_chains
from jurax.models.language.regchain_check import liveness
from jurax.models.language.regchain_corpus import write_solutions

VOCABULARY = len(tokenizer.VOCABULARY)


@jax.jit
@jax.vmap
def read_rows(program, trace, tokens, count):
    longer, _ = read(program, trace, tokens, count)
    return longer, is_live(program, longer), stated_value(longer)


def read_in_pieces(suite, texts, rng, width):
    """Read texts in pieces of 0 to `width` tokens; yield positions and what was found there."""
    programs = encode_programs([p.prompt for p in suite])
    trace = jax.vmap(start_trace)(programs)
    position = np.zeros(len(texts), int)
    lengths = np.array([len(text) for text in texts])
    while (position < lengths).any():
        counts = np.minimum(rng.integers(0, width + 1, size=len(texts)), lengths - position)
        tokens = rng.integers(0, VOCABULARY, size=(len(texts), width))  # what follows is not read
        for row, (text, start, count) in enumerate(zip(texts, position, counts, strict=True)):
            tokens[row, :count] = text[start : start + count]
        trace, live, _ = read_rows(
            programs, trace, jnp.asarray(tokens, jnp.int32), jnp.asarray(counts, jnp.int32)
        )
        position = position + counts
        yield position, np.asarray(live)


def damage(rng, text):
    """Replace, drop, insert or repeat words; sometimes two faults."""
    words = list(text)
    for _ in range(rng.integers(1, 3)):
        at = int(rng.integers(len(words)))
        token = (
            int(rng.integers(VOCABULARY)) if rng.random() < 0.7 else words[rng.integers(len(words))]
        )
        match rng.integers(5):
            case 0:
                words[at] = token
            case 1:
                words.insert(at, token)
            case 2:
                del words[at]
            case 3:
                words.insert(at, tokenizer.PAD)
            case 4:
                words = words[:at] + words[max(0, at - 12) :]
    return words


# The checker takes most of the time: the runs with thousands of prefixes are marked slow.
THOUSANDS = pytest.param(12, 1000, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "num_texts"), [(1, 24), (12, 60), (30, 60), THOUSANDS])
def test_prefixes_of_executor_solutions(width, num_texts, seed):
    suite = problems("train", num_texts, seed=width, lengths=(1, 8))
    rng = np.random.default_rng(seed)
    law = executor_law(ExecutorDials(binding_error=0.1))
    texts = [write_solutions(rng, to_chains(p), law)[0].tolist() for p in suite]
    outcomes = []
    for position, live in read_in_pieces(suite, texts, rng, width):
        if width == 1 and rng.random() < 0.8:
            continue  # a sample of the single words
        expected = [liveness(p, t[:k]) for p, t, k in zip(suite, texts, position, strict=True)]
        assert live.tolist() == expected
        outcomes += expected
    assert 0.3 < np.mean(outcomes) < 0.9  # both kinds occur


@pytest.mark.slow
@pytest.mark.parametrize(("width", "num_texts"), [(12, 160), (17, 80), THOUSANDS])
def test_prefixes_of_damaged_solutions(width, num_texts, seed):
    suite = problems("train", num_texts, seed=width, lengths=(1, 8))
    rng = np.random.default_rng(seed)
    law = executor_law(ExecutorDials(binding_error=0.02))
    texts = [damage(rng, write_solutions(rng, to_chains(p), law)[0].tolist()) for p in suite]
    outcomes = []
    for position, live in read_in_pieces(suite, texts, rng, width):
        expected = [liveness(p, t[:k]) for p, t, k in zip(suite, texts, position, strict=True)]
        assert live.tolist() == expected, [
            (p.prompt, tokenizer.decode(t[:k]))
            for p, t, k, a, b in zip(suite, texts, position, live, expected, strict=True)
            if a != b
        ][:3]
        outcomes += expected
    assert 0.15 < np.mean(outcomes) < 0.85


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("", True),
        ("# 5", True),  # the answer counts, not how it was reached
        ("# 4", False),
        ("#", False),  # before the last instruction
        ("# 5 <end>", True),
        ("# 5 ;", False),
        ("# 5 <end> <end>", False),
        ("# <end>", False),
        ("r1: A A=7 7 * B B=12 12 > 8 r1=8 ;", True),
        ("r1: A A=7 7 * B B=12 12 > 9 r1=9 ;", False),
        ("r1: A A=7 7 * B B=12 12 > 9 r1=8 ;", True),  # what is bound is read later
        ("r1: A A=7 7 * B B=12 12 > 8 r2=8 ;", False),
        ("r1: A A=7 7 * B B=12 12 > 8 r1=8 # 5 <end>", False),
        ("r2: A A=7 7 * B B=12 12 > 8 r1=8 ;", False),
        ("r1: A A=7 7 * B B=12 12 > 8 <pad> r1=8 ;", True),
        ("<end>", False),
        ("r1: r2", False),
        ("r1: r2 A=7", True),  # a wrong name with a right value
    ],
)
def test_single_prefixes(text, live):
    problem = example()
    programs = encode_programs([EXAMPLE])
    ids = tokenizer.encode(text)
    tokens = jnp.zeros((1, 20), jnp.int32).at[0, : len(ids)].set(jnp.asarray(ids, jnp.int32))
    trace = jax.vmap(start_trace)(programs)
    _, found, _ = read_rows(programs, trace, tokens, jnp.array([len(ids)]))
    assert bool(found[0]) == liveness(problem, ids) == live


def example():
    leaves, instructions = parse(EXAMPLE)
    return Problem("example", EXAMPLE, "5", 2, tuple(leaves), tuple(instructions))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", -1),
        ("r1: A A=7 7 * B B=12 12 > 8 r1=8 ;", 8),
        ("r1: A A=7 7 * B B=12 12 > 8 r1=8 ; r2: r1 r1=3 3", 8),
        ("r1: A A=7 7 * B B=12 12 > 8 r1=8 ; # 4 <end>", 4),
        ("# <end>", -1),
    ],
)
def test_the_stated_value_is_the_last_result_or_answer(text, value):
    programs = encode_programs([EXAMPLE])
    ids = tokenizer.encode(text)
    tokens = jnp.zeros((1, 20), jnp.int32).at[0, : len(ids)].set(jnp.asarray(ids, jnp.int32))
    _, _, stated = read_rows(
        programs, jax.vmap(start_trace)(programs), tokens, jnp.array([len(ids)])
    )
    assert int(stated[0]) == value
