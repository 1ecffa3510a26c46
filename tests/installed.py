"""Run by `make wheel-check` with the Python of an environment that holds the wheel alone."""

import importlib.metadata
import importlib.resources
from pathlib import Path

import jurax
import jurax.inference
import jurax.models.language
import jurax.models.state_space
import jurax.ppl

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Check that the installed package is the wheel's and that it is complete."""
    where = Path(jurax.__file__).resolve()
    assert ROOT / "src" not in where.parents, f"imported from the checkout: {where}"
    assert importlib.metadata.version("jurax") == jurax.__version__
    files = importlib.resources.files("jurax")
    sources = {p.relative_to(ROOT) for f in ("ppl", "inference", "models") for p in walk(ROOT / f)}
    missing = sorted(str(path) for path in sources if not files.joinpath(str(path)).is_file())
    assert not missing, f"not in the wheel: {missing}"
    assert files.joinpath("py.typed").is_file()
    model, reward = jurax.models.language.load_default()
    assert model is not None and reward is not None
    print(f"jurax {jurax.__version__}: {len(sources)} files of the checkout are in {where.parent}")


def walk(folder: Path) -> list[Path]:
    """Files of a folder that belong into the wheel."""
    kept = (".py", ".md", ".safetensors", ".json", ".jsonl")
    return [p for p in folder.rglob("*") if p.suffix in kept and "__pycache__" not in p.parts]


if __name__ == "__main__":
    main()
