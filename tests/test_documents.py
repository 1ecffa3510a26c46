"""The code in the documents runs and says what the documents say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python_blocks(name: str) -> list[str]:
    """The Python code of a document, block by block."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_readme_example_prints_a_posterior(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = python_blocks("README.md")
    assert len(code.splitlines()) <= 25  # about 20 lines
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    distribution = scope["posterior"].distribution(scope["reasoning"].answer)
    assert distribution.probabilities.sum() == pytest.approx(1.0)
    assert printed.splitlines()[1] == str(distribution).splitlines()[0]


FOLDERS = [f"models/{name}/README.md" for name in ("crowd", "judging", "language", "state_space")]


@pytest.mark.rank_promotion("allow")  # numpyro's stick-breaking transform, in the judges' example
@pytest.mark.filterwarnings("ignore:candidate scores have R-hat")
@pytest.mark.parametrize("name", FOLDERS)
def test_examples_of_the_folders_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = python_blocks(name)
    exec(compile(code, name, "exec"), {})
    assert capsys.readouterr().out


def test_contributing_skeleton_passes_its_own_test() -> None:
    scope: dict = {}
    for block in python_blocks("CONTRIBUTING.md"):
        exec(compile(block, "CONTRIBUTING.md", "exec"), scope)
    scope["test_roulette_preserves_the_measure"]()


def test_contributing_skeleton_with_a_fault_fails_its_test() -> None:
    kernel, test = python_blocks("CONTRIBUTING.md")
    broken = kernel.replace(
        "population.log_weights - jnp.log(self.survival)", "population.log_weights"
    )
    assert broken != kernel
    scope: dict = {}
    exec(broken, scope)
    exec(test, scope)
    with pytest.raises(AssertionError, match="BROKEN"):
        scope["test_roulette_preserves_the_measure"]()


def test_readme_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"make ([a-z-]+)", (ROOT / name).read_text()))
        assert named <= targets, named - targets
