"""Problems from files: what is read, and what is refused before any work."""

import json
from pathlib import Path

import pytest

from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.questions import (
    Question,
    generate_questions,
    prompt_lengths,
    read_questions,
)

PROMPT = "A=7 B=12 C=3 r1: A * B ? r1"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_entries_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        json.dumps({"id": "first", "prompt": PROMPT, "answer": "8"}),
        "",
        json.dumps({"prompt": PROMPT, "answer": 8, "source": "ignored"}),
        json.dumps({"id": 7, "prompt": PROMPT, "answer": None}),
    )
    assert read_questions(path) == [
        Question("first", PROMPT, "8"),
        Question("3", PROMPT, "8"),
        Question("7", PROMPT, None),
    ]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"prompt": PROMPT}).encode())
    assert read_questions(path)[0].prompt == PROMPT


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{prompt", "is not JSON"),
        ('["a"]', 'has no "prompt"'),
        ('{"question": "A=7"}', 'has no "prompt"'),
        ('{"prompt": " "}', '"prompt" is empty'),
        ('{"prompt": 7}', '"prompt" is empty or not a text'),
        ('{"prompt": "A=7", "answer": 1.5}', '"answer" is 1.5; expected a text'),
        ('{"prompt": "A=7", "id": true}', '"id" is True; expected a text'),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path, json.dumps({"prompt": PROMPT}), line)
    with pytest.raises(ValueError) as error:
        read_questions(path)
    assert words in str(error.value)
    assert "problems.jsonl, line 2" in str(error.value) and "expected" in str(error.value)


def test_an_id_appears_once(tmp_path: Path) -> None:
    path = written(tmp_path, *[json.dumps({"id": "a", "prompt": PROMPT})] * 2)
    with pytest.raises(ValueError, match=r"line 2: the id 'a' is that of .*line 1"):
        read_questions(path)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no problem; expected one JSON object"):
        read_questions(written(tmp_path, "", "  "))
    with pytest.raises(ValueError, match="cannot read problems from .*missing.jsonl"):
        read_questions(tmp_path / "missing.jsonl")
    with pytest.raises(ValueError, match="cannot read problems"):
        read_questions(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot read problems"):
        read_questions(tmp_path / "binary")


def test_unknown_tokens_are_listed_by_line(tmp_path: Path) -> None:
    lines = [PROMPT, PROMPT.replace("B", "Q"), PROMPT, "hello"]
    path = written(tmp_path, *[json.dumps({"prompt": line}) for line in lines])
    with pytest.raises(ValueError) as error:
        prompt_lengths(read_questions(path), NoisyExecutor())
    message = str(error.value)
    assert message.startswith("2 prompts cannot be read")
    assert "line 2: " in message and "line 4: " in message and "line 1: " not in message


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    question = Question("1", PROMPT, source="problems.jsonl, line 1")
    with pytest.raises(ValueError, match=r"1 prompts are too long.*(?s:.*)line 1: 9 tokens"):
        prompt_lengths([question], NoisyExecutor(max_length=116))
    assert prompt_lengths([question], NoisyExecutor(max_length=117)).tolist() == [9]


def test_generated_problems_are_of_the_test_split() -> None:
    questions = generate_questions(3, seed=5)
    assert [question.id for question in questions] == ["test-5-0", "test-5-1", "test-5-2"]
    assert all(question.answer is not None for question in questions)
    with pytest.raises(ValueError, match="num_problems must be at least 1, got 0"):
        generate_questions(0, seed=0)
