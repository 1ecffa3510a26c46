"""The command line: arguments, messages and exit codes. Work is done by a small stand-in model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jurax import cli
from jurax.models.language import default, solve
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.noisy_executor import NoisyExecutor

PROMPT = "A=7 B=12 C=3 r1: A * B ? r1"
runner = CliRunner()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "load_default", lambda: (NoisyExecutor(), DialledReward()))


def failed(*arguments: str) -> str:
    """Standard error of a command that must fail without a traceback."""
    done = runner.invoke(cli.app, list(arguments))
    assert done.exit_code in (1, 2) and not isinstance(done.exception, ValueError | OSError)
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.replace("│", " ").split())


def test_help_names_the_commands() -> None:
    done = runner.invoke(cli.app, ["--help"])
    assert done.exit_code == 0 and "demo" in done.stdout and "solve" in done.stdout


def test_solve_from_a_file(stand_in, tmp_path: Path) -> None:
    path, output = tmp_path / "problems.jsonl", tmp_path / "out"
    path.write_text(json.dumps({"id": "first", "prompt": PROMPT, "answer": "8"}) + "\n")
    arguments = ["solve", "--input", str(path), "--num-particles", "4", "--output", str(output)]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "particle filter" in done.stdout and "target of particle_filter" in done.stdout
    line = json.loads((output / "answers.jsonl").read_text())
    assert line["id"] == "first" and line["answer"] == "8" and line["correct"]
    again = runner.invoke(cli.app, [*arguments, "--resume"])
    assert again.exit_code == 0 and again.stdout == done.stdout
    assert "holds this run already, which is complete" in failed(*arguments)
    assert "num_particles is 4 there and 5 here" in failed(*arguments[:4], "5", *arguments[5:])


def test_demo_prints_methods_strength_and_files(stand_in, tmp_path: Path) -> None:
    arguments = ["--num-problems", "4", "--num-particles", "2", "--output", str(tmp_path / "out")]
    done = runner.invoke(cli.app, ["demo", *arguments])
    assert done.exit_code == 0, done.stderr
    for words in ("greedy", "majority", "best of N", "particle filter", "summary.json"):
        assert words in done.stdout
    assert "strength fitted on validation: 0.6 (reward target odds)" in done.stdout
    # A table that is wider than the terminal would be cut.
    assert "…" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("solve", "--method", "beam"), "method is 'beam'; expected one of greedy, majority"),
        (("solve", "--num-particles", "0"), "--num-particles"),
        (("demo", "--num-particles", "0"), "--num-particles"),
        (("solve", "--num-problems", "0"), "--num-problems"),
        (("demo", "--num-problems", "0"), "--num-problems"),
        (("solve", "--seed", "-1"), "--seed"),
        (("demo", "--seed", "4294967296"), "--seed"),
        (("solve", "--reward-target", "sum"), "reward_target must be one of"),
        (("solve", "--input", "missing.jsonl"), "cannot read problems from missing.jsonl"),
    ],
)
def test_bad_arguments(stand_in, tmp_path: Path, monkeypatch, arguments, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in failed(*arguments)
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no problem"),
        ('{"prompt": \n', "problems.jsonl, line 1 is not JSON"),
        ('{"prompt": "A=7 Q r1: A * A ? r1"}\n', "problems.jsonl, line 1: "),
    ],
)
def test_bad_files(stand_in, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    message = failed("solve", "--input", str(path), "--output", str(tmp_path / "out"))
    assert words in message and not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(stand_in, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in ("solve", "demo"):
        message = failed(command, "--num-problems", "1", "--output", str(tmp_path / "file" / "out"))
        assert "cannot write to the output folder" in message
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("")
    for command in ("solve", "demo"):
        message = failed(command, "--num-problems", "1", "--output", str(tmp_path / "folder"))
        assert "is not empty and holds no run of jurax" in message


def test_corrupt_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "policy.safetensors"
    broken.write_bytes(b"\x00" * 64)
    load = default.load_default
    monkeypatch.setattr(default, "load_default", lambda: load(policy=broken))
    message = failed("solve", "--num-problems", "1", "--output", str(tmp_path / "out"))
    assert "policy.safetensors is not a readable safetensors file" in message
    assert not (tmp_path / "out").exists()


def test_a_message_may_hold_brackets(stand_in) -> None:
    assert "cannot read problems from [red].jsonl" in failed("solve", "--input", "[red].jsonl")


# The same command line in another process, killed without warning.
KILLED = """
import sys
from jurax import cli
from jurax.models.language import default, solve
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.noisy_executor import NoisyExecutor
default.load_default = lambda: (NoisyExecutor(), DialledReward())
solve.MAX_PROBLEMS = 2
cli.app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_is_killed_resumes(stand_in, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(solve, "MAX_PROBLEMS", 2)
    arguments = ["solve", "--num-problems", "60", "--num-particles", "4", "--output"]
    output, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED, *arguments, str(output)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    lines = output / "answers.jsonl"
    while not (lines.exists() and lines.read_text().count("\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "summary.json").exists(), "killed before the end"
    for folder, option in ((output, ["--resume"]), (whole, [])):
        done = runner.invoke(cli.app, [*arguments, str(folder), *option])
        assert done.exit_code == 0, done.stderr
    assert lines.read_bytes() == (whole / "answers.jsonl").read_bytes()


@pytest.mark.slow
def test_the_shipped_models_solve(tmp_path: Path) -> None:
    arguments = ["--num-problems", "4", "--num-particles", "4", "--output", str(tmp_path / "out")]
    done = runner.invoke(cli.app, ["solve", *arguments])
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
