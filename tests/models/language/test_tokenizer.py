import numpy as np
import pytest

from jurax.models.language import tokenizer
from jurax.models.language.regchain import problems


def test_every_word_survives_the_round_trip():
    text = " ".join(word for word in tokenizer.VOCABULARY if word != "<pad>")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_are_different_and_few():
    assert len(set(tokenizer.VOCABULARY)) == len(tokenizer.VOCABULARY) == 256


def test_prompts_are_in_the_vocabulary():
    for problem in problems("train", 20, seed=3):
        assert tokenizer.decode(tokenizer.encode(problem.prompt)) == problem.prompt


@pytest.mark.parametrize("word", ["19", "r9", "r1=19", "R1", "hello"])
def test_an_unknown_word_is_named(word):
    with pytest.raises(ValueError, match=f"unknown token '{word}'"):
        tokenizer.encode(f"A=7 {word} ;")


@pytest.mark.parametrize("index", [-1, 256])
def test_an_id_outside_of_the_vocabulary_is_named(index):
    with pytest.raises(ValueError, match=str(index)):
        tokenizer.decode([index])


def test_padding_is_dropped_and_steps_end_at_two_words():
    assert tokenizer.decode(np.array([tokenizer.PAD, tokenizer.STEP])) == ";"
    ends = [w for w, end in zip(tokenizer.VOCABULARY, tokenizer.step_ends(), strict=True) if end]
    assert ends == ["<end>", ";"]
