"""A walk over every outcome of a randomised function.

The function is compiled once, inside `jurax.ppl.random.enumerating`: its draws have become ordered
callbacks, while scan, while_loop and cond stay what they are. It is then replayed depth-first, once
for each sequence of outcomes of positive probability (monad-bayes calls its like an enumerator).

Keys are of a kind of their own here: they hold the path by which they were derived from the key of
the run (the children of `split` and the results of `fold_in` alike, as in threefry). The walk so
sees a key that is used twice, and one that is drawn from and also derived from, which JAX's own
checker does not. They hold no bits: a draw that bypasses `jurax.ppl.random` is an error.

The functions called for each outcome are exempt from the runtime checks of types that our tests
switch on: with them a walk took half as long again.

Shape letters: K outcomes, B keys of one draw.
"""

import functools
from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jurax.ppl import random

MAX_DERIVATIONS = 24  # splits and folds between the key of a run and that of a draw
NEGLIGIBLE = 1e-15  # outcomes below are rounding errors of interval lengths
MAX_REPLAYS = 1_000_000
QUICK = {"xla_backend_optimization_level": "0"}  # compiling takes longer than all replays


class Walk:
    """Replays a function over all outcomes of its draws; an oracle of `jurax.ppl.random`.

    Args:
        function: `(key, *arguments) -> pytree of arrays`; draws by `jurax.ppl.random` alone.
        arguments: examples of the other arguments, for shapes.
        compiled: whether to compile; hosted processes run in Python.

    Attributes:
        num_replays: replays so far.
        total_probability: the sum of their probabilities in the last walk.
        key_fault: how a key was misused, or None.

    Example:
        >>> import jax.numpy as jnp
        >>> walk = Walk(lambda key: random.bernoulli(key, 0.25, (2,)).sum())
        >>> mean = []
        >>> walk.run(lambda probability, heads: mean.append(probability * heads))
        >>> float(sum(mean)), walk.num_replays, walk.total_probability
        (0.5, 4, 1.0)
    """

    def __init__(self, function: Callable, *arguments: PyTree, compiled: bool = True):
        self.num_replays = 0
        self.total_probability = 0.0
        self.key_fault: str | None = None
        self._checked: set[tuple] = set()
        self._branches: list[_Branch] = []
        self._restart()
        self._function = function
        if compiled:
            with jax.enable_x64(True), random.enumerating(self):
                lowered = jax.jit(function).lower(root_key(), *arguments)
                self._function = lowered.compile(QUICK)

    def run(self, visit: Callable[[float, Any], None], *arguments: PyTree) -> None:
        """Call `visit(probability, result)` for every sequence of outcomes.

        Raises:
            ValueError: if the probabilities of a draw or of all sequences do not sum to 1, if the
                function does not draw the same again for the same outcomes, or if there are more
                than a million sequences.
        """
        self._branches, self.total_probability = [], 0.0
        limit = self.num_replays + MAX_REPLAYS
        with jax.enable_x64(True):
            key, arguments = root_key(), jax.tree.map(_to_device, arguments)
        while True:
            self._restart()
            with jax.enable_x64(True), random.enumerating(self):
                result = jax.tree.map(_to_host, self._function(key, *arguments))
            if self._error is not None:
                raise ValueError(self._error)
            self.num_replays += 1
            self.total_probability += self._probability
            self._check_keys()
            visit(self._probability, result)
            if not self._next_sequence():
                break
            if self.num_replays >= limit:
                raise ValueError(
                    f"more than {MAX_REPLAYS} sequences of outcomes: enumerate fewer particles, "
                    "steps or symbols"
                )
        if not abs(self.total_probability - 1) < 1e-10:
            raise ValueError(f"outcomes have total probability {self.total_probability!r}, not 1")

    # ------------------------------------------------------------ the oracle

    @no_type_check
    def choose(self, probabilities: Any, key_data: Any) -> np.ndarray:
        """One outcome for each row of `probabilities[..., K]`, rows in order."""
        probabilities, key_data = np.asarray(probabilities), np.asarray(key_data)
        self._keys.append(key_data.reshape(-1, key_data.shape[-1]))
        rows = probabilities.reshape(-1, probabilities.shape[-1])
        chosen = np.array([self._choose_one(row) for row in rows], np.int32)
        return chosen.reshape(probabilities.shape[:-1])

    @no_type_check
    def _choose_one(self, row: np.ndarray) -> int:
        if not (np.all(row >= -NEGLIGIBLE) and abs(row.sum() - 1) < 1e-6):
            self._error = f"a draw has the probabilities {row.tolist()}, which do not sum to 1"
        if self._error is not None:
            return 0
        if self._depth == len(self._branches):
            self._branches.append(_Branch(np.flatnonzero(row > NEGLIGIBLE)))
        branch = self._branches[self._depth]
        outcome = branch.outcome()
        if outcome >= row.shape[0] or not row[outcome] > 0:
            self._error = "the function draws otherwise when it is replayed with the same outcomes"
            return 0
        self._depth += 1
        self._probability *= float(row[outcome])
        return outcome

    def _restart(self) -> None:
        self._depth, self._probability = 0, 1.0
        self._keys: list[np.ndarray] = []
        self._error: str | None = None

    def _next_sequence(self) -> bool:
        while self._branches and not self._branches[-1].advance():
            self._branches.pop()
        return bool(self._branches)

    def _check_keys(self) -> None:
        signature = tuple(keys.tobytes() for keys in self._keys)
        if self.key_fault is None and signature not in self._checked:
            self._checked.add(signature)
            self.key_fault = fault_of([paths_of(keys) for keys in self._keys])


class _Branch:
    """One choice of the current sequence: its outcomes and the one that is being replayed."""

    def __init__(self, outcomes: np.ndarray):
        self._outcomes = [int(k) for k in outcomes]
        self._position = 0

    @no_type_check
    def outcome(self) -> int:
        return self._outcomes[self._position]

    @no_type_check
    def advance(self) -> bool:
        self._position += 1
        return self._position < len(self._outcomes)


# -------------------------------------------------------------------- keys that know their path


def fault_of(draws: list[list[tuple[int, ...]]]) -> str | None:
    """How a key is misused, given the derivations of the keys of each draw of a run; or None.

    Example:
        >>> fault_of([[(0,)], [(1, 0), (1, 1)]])
        >>> fault_of([[(0,)], [(0, 5)]])
        'the key of draw 0 is used again: that of draw 1 is derived from it'
    """
    first_use: dict[tuple, int] = {}
    for number, path in _numbered(draws):
        if path in first_use:
            return f"draws {first_use[path]} and {number} use the same key"
        first_use[path] = number
    for number, path in _numbered(draws):
        for length in range(len(path)):
            if path[:length] in first_use:
                return (
                    f"the key of draw {first_use[path[:length]]} is used again: that of draw "
                    f"{number} is derived from it"
                )
    return None


def _numbered(draws: list[list[tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    return [(number, path) for number, paths in enumerate(draws) for path in paths]


def root_key() -> Array:
    """The key of a run."""
    return jax.random.key(0, impl=_derivation_keys())


def paths_of(keys: np.ndarray) -> list[tuple[int, ...]]:
    """The derivation of each key of one draw, from the key of the run downwards."""
    if np.max(keys[:, 0]) > MAX_DERIVATIONS:
        raise ValueError(f"a key is derived by more than {MAX_DERIVATIONS} splits and folds")
    return [tuple(int(x) for x in key[1 : 1 + int(key[0])]) for key in keys]


@functools.cache
def _derivation_keys() -> Any:
    """Register the kind of key: [number of derivations, the index of each]."""
    return jax.extend.random.define_prng_impl(
        key_shape=(MAX_DERIVATIONS + 1,),
        seed=_seed,
        split=_split,
        random_bits=_no_bits,
        fold_in=_fold_in,
        name="jurax-derivation",
        tag="derivation",
    )


def _seed(seed: Array) -> Array:
    del seed
    return jnp.zeros(MAX_DERIVATIONS + 1, jnp.uint32)


def _fold_in(key: Array, data: Array | int) -> Array:
    length = key[0] + jnp.uint32(1)
    slot = jnp.minimum(length, MAX_DERIVATIONS).astype(jnp.int32)
    return key.at[slot].set(jnp.asarray(data, jnp.uint32)).at[0].set(length)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    children = jnp.arange(int(np.prod(shape)), dtype=jnp.uint32)
    return jax.vmap(lambda child: _fold_in(key, child))(children).reshape(*shape, -1)


def _no_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    raise ValueError(
        "a draw bypasses jurax.ppl.random and cannot be enumerated: draw finitely many outcomes by "
        "jurax.ppl.random (categorical, bernoulli, choice, or uniform with breaks)"
    )


def _to_device(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype != object else leaf


def _to_host(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
