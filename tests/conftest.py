"""Strict flags, keys and data for the whole suite.

Every test is deterministic: its key is derived from `--seed` (fixed by default) and its own name,
so that two tests share no noise and the order of tests does not matter. A failing test prints the
seed.
"""

import gc
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jaxtyping import Array

DEFAULT_SEED = 20240607
collect_ignore = ["installed.py"]  # run by `make wheel-check` in another environment
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, default=DEFAULT_SEED, help="seed of the `key` fixture of every test"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {chosen_seed(config)}"


def chosen_seed(config: pytest.Config) -> int:
    """The value of `--seed`."""
    value = config.getoption("seed")
    assert isinstance(value, int)
    return value


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        seed = chosen_seed(item.config)
        report.sections.append(("seed", f"rerun with: pytest --seed {seed} '{item.nodeid}'"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """An integer that depends on `--seed` and on the name of the test alone."""
    name = request.node.name
    return (chosen_seed(request.config) + zlib.crc32(name.encode())) % 2**32


@pytest.fixture
def key(seed: int) -> Array:
    """A fresh typed key; consume it once."""
    return jax.random.key(seed)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, where a test claims exactness."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key_reuse() -> Iterator[None]:
    """JAX's checker: a key that is consumed twice raises `KeyReuseError`."""
    with jax.debug_key_reuse(True):
        yield


@pytest.fixture(autouse=True)
def strict_rank_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise where arrays of different rank are combined silently.

    Mark a test `rank_promotion("allow")` where a third-party library does so inside its own code.
    """
    marker = request.node.get_closest_marker("rank_promotion")
    with jax.numpy_rank_promotion(marker.args[0] if marker else "raise"):
        yield


@pytest.fixture(autouse=True)
def hash_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are hashed by `jax.random`, which compiles sooner: the same bits (test_threefry)."""
    from jurax.ppl import threefry  # not above: type checks are switched on after this file is read

    monkeypatch.setattr(threefry, "UNROLL", False)


@pytest.fixture
def compiled_quickly() -> Iterator[None]:
    """Compile without most optimisations, where compiling takes longer than running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def memory_maps() -> Iterator[None]:
    """Drop compiled programs before the kernel's bound on memory maps (65,530 on Linux) is near.

    Each program takes dozens of maps; XLA aborts where one more is refused. One module alone may
    compile enough of them, so that every test is followed by a look.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets: `JURAX_DATA`, by default `../shared/data`.

    Tests are skipped where it is absent, except in CI, where its absence is a failure.
    """
    folder = Path(os.environ.get("JURAX_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"no data folder at {folder}; set JURAX_DATA"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
