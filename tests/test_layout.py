"""The arrows between folders, the size of files, and what an import may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("ppl", "inference", "models")
# Which folders a folder may import from.
ARROWS = {
    "ppl": {"ppl"},
    "inference": {"ppl", "inference"},
    "models": {"ppl", "inference", "models"},
}
MAX_LINES = 450


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def all_files() -> list[Path]:
    return [file for folder in FOLDERS for file in files_of(folder)]


def module_of(file: Path) -> str:
    parts = ("jurax", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str) -> set[str]:
    """Dotted names that a module imports, `from a import b` as `a.b`, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def broken_arrows(folder: str, source: str) -> set[str]:
    """Imports in a file of `folder` that point the wrong way or use a bare or relative name."""
    broken = set()
    for name in imports_of(source):
        first, _, rest = name.partition(".")
        neighbour = rest.partition(".")[0]
        wrong = first == "jurax" and neighbour in FOLDERS and neighbour not in ARROWS[folder]
        if wrong or first in FOLDERS or name.startswith("."):
            broken.add(name)
    return broken


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_point_one_way(folder: str) -> None:
    broken = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files_of(folder)
        for name in broken_arrows(folder, file.read_text())
    }
    assert files_of(folder) and not broken


def test_a_wrong_arrow_is_seen() -> None:
    assert broken_arrows("ppl", "from jurax.inference import infer")
    assert broken_arrows("ppl", "def f():\n    import jurax.models.language")
    assert broken_arrows("inference", "from jurax import models")
    assert broken_arrows("models", "import ppl") and broken_arrows("models", "from .. import ppl")
    assert not broken_arrows("models", "from jurax.inference import infer\nimport inferences")


def test_links_point_to_the_folders() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "jurax" / folder
        assert link.is_symlink() and link.resolve() == ROOT / folder


def test_every_module_has_a_docstring() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in [*all_files(), *sorted((ROOT / "src" / "jurax").glob("*.py"))]
        if ast.get_docstring(ast.parse(file.read_text())) is None
    ]
    assert not silent


def test_files_hold_one_idea() -> None:
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in all_files()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_every_folder_has_a_readme_of_one_screen() -> None:
    for folder in FOLDERS:
        lines = (ROOT / folder / "README.md").read_text().splitlines()
        assert 10 <= len(lines) <= 80, folder


# Run in a fresh interpreter: what importing every module of the package leaves behind.
IMPORT_EVERYTHING = """
import importlib, sys
import jax
before = dict(jax.config.values)
for name in {names!r}:
    importlib.import_module(name)
changed = {{k: (before.get(k), v) for k, v in jax.config.values.items() if before.get(k) != v}}
assert not changed, f"importing changed the configuration of JAX: {{changed}}"
assert not jax.live_arrays(), f"importing allocated arrays: {{jax.live_arrays()}}"
bare = {{"ppl", "inference", "models"}} & set(sys.modules)
assert not bare, f"imported under bare names: {{bare}}"
print("clean")
"""


def test_imports_are_clean(tmp_path: Path) -> None:
    # Third-party imports first: whatever NumPyro, Flax and ArviZ do at import is theirs.
    third_party = ["numpyro", "numpyro.contrib.control_flow", "equinox", "flax.nnx", "optax"]
    modules = [module_of(file) for file in all_files() if "__main__" not in file.name]
    command = sys.executable, "-c"
    for names in (["jurax"], third_party + modules):
        done = subprocess.run(
            [*command, IMPORT_EVERYTHING.format(names=names)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0 and done.stdout == "clean\n", done.stderr


def test_no_module_has_two_identities() -> None:
    import jurax.inference
    import jurax.models
    import jurax.ppl

    del jurax
    assert {"ppl", "inference", "models"}.isdisjoint(sys.modules)
