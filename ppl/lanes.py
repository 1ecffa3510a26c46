"""Lane-keyed draws: one batched draw for code that is written for one particle.

Per-particle code is lifted by `vmap`. A key per particle would cost 1.5 to 2 times the whole scalar
filter, so `sample(distribution, key, lane)` takes one key for *all* lanes: under `vmap` it becomes
a single draw from the batched distribution, whose rows are independent. The distribution is
batched by rebuilding it from its arguments; one that cannot be rebuilt is drawn with one key a
lane, which has the same law and is slower.

While `jurax.ppl.laws` enumerates, finite distributions are drawn by
`jurax.ppl.random.categorical`, all lanes in one call, and others are refused.

Normals come from one flat counter hash (`normals`), categorical indices from one uniform each.
Shape letters: N lanes (particles), K outcomes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int

from jurax.ppl import random
from jurax.ppl.threefry import mantissa, threefry

MAX_UNROLLED = 64  # outcomes up to which a categorical draw is unrolled; Gumbel noise beyond

_BROADCASTING = (dist.Normal, dist.MultivariateNormal)  # drawn by `_draw_flat`, shared parts too


def sample(distribution: dist.Distribution, key: Array, lane: Int[Array, ""]) -> Array:
    """Draw from a NumPyro distribution inside a function of one particle.

    Args:
        distribution: may depend on the particle.
        key: one key, shared by all lanes of the `vmap` around this call; consumed. Rows of the
            result are independent although the key is the same.
        lane: index of the particle, mapped over by the `vmap` around this call.

    Returns:
        A draw of shape `distribution.shape()`.

    Raises:
        ValueError: while an oracle enumerates, for a distribution with infinitely many outcomes.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> key, lanes = jax.random.key(0), jnp.arange(100_000)
        >>> draw = jax.vmap(lambda mean, lane: sample(dist.Normal(mean, 1.0), key, lane))
        >>> noise = draw(jnp.ones(100_000), lanes) - 1
        >>> bool(abs(noise.mean()) < 0.02), bool(abs(noise.std() - 1) < 0.02)
        (True, True)
    """
    if not type(distribution).__module__.startswith("numpyro.distributions"):
        _refuse_infinite(distribution)
        return jnp.asarray(distribution.sample(random.fold_in(key, lane)))
    leaves, treedef = jax.tree.flatten(distribution)
    is_dynamic = [isinstance(leaf, jax.Array) for leaf in leaves]

    def rebuild(dynamic: list, fixed: list) -> Any:
        rest, constants = iter(dynamic), iter(fixed)
        return jax.tree.unflatten(treedef, [next(rest if d else constants) for d in is_dynamic])

    fixed = [leaf for leaf, dynamic in zip(leaves, is_dynamic, strict=True) if not dynamic]
    all_shared = [False] * len(fixed)

    @custom_vmap
    def draw(dynamic: list, key: Array, lane: Any) -> Array:
        del lane  # a constant where lanes have keys of their own
        return _draw_alone(key, rebuild(dynamic, fixed))

    @draw.def_vmap
    def draw_all(num_lanes: int, batched: list, dynamic: list, key: Array, lane: Any):
        del lane
        axes = _Axes(rebuild(batched[0], all_shared), num_lanes)
        if batched[1]:
            return _draw_each(key, rebuild(dynamic, fixed), axes), True
        return _draw_batch(key, rebuild(dynamic, fixed), axes), True

    return draw([leaf for leaf in leaves if isinstance(leaf, jax.Array)], key, lane)


class _Axes:
    """Which leaves of a distribution have the axis of lanes in front."""

    def __init__(self, batched: Any, num_lanes: int):
        self.batched = batched
        self.num_lanes = num_lanes

    def __getattr__(self, name: str) -> "_Axes":
        return _Axes(getattr(self.batched, name), self.num_lanes)

    def vmap(self, function: Callable, tree: Any, *args: Any) -> Any:
        """`function(tree, *args)` by lane; every leaf of `args` has the axis of lanes."""
        leaves, treedef = jax.tree.flatten(tree)
        axes = [0 if b else None for b in jax.tree.leaves(self.batched)]

        def call(leaves: list, *args: Any) -> Any:
            return function(jax.tree.unflatten(treedef, leaves), *args)

        return jax.vmap(call, in_axes=(axes, *(0 for _ in args)), axis_size=self.num_lanes)(
            leaves, *args
        )


def _draw_alone(key: Array, distribution: Any) -> Array:
    """A draw outside `vmap`."""
    if random.is_enumerating():
        _refuse_infinite(distribution)
        support, log_probs = _outcomes(distribution)
        return support[random.categorical(key, log_probs)]
    return distribution.sample(key)


def _draw_each(keys: Array, distribution: Any, axes: _Axes) -> Array:
    """One key for each lane: right for every distribution, slower."""
    return axes.vmap(lambda d, key: d.sample(key), distribution, keys)


def _draw_batch(key: Array, distribution: Any, axes: _Axes) -> Array:
    """One draw for all lanes: `(N, *distribution.shape())`."""
    if random.is_enumerating():
        return _draw_enumerated(key, distribution, axes)
    if isinstance(distribution, dist.Independent | dist.MaskedDistribution):
        return _draw_batch(key, distribution.base_dist, axes.base_dist)
    if not any(jax.tree.leaves(axes.batched)):
        return _draw_flat(key, distribution, (axes.num_lanes,))
    if type(distribution) is dist.Delta:
        return axes.vmap(lambda d: d.v, distribution)
    if type(distribution) is dist.TransformedDistribution:
        base = _draw_batch(key, distribution.base_dist, axes.base_dist)
        return axes.transforms.vmap(_apply, distribution.transforms, base)
    lifted = _lift(distribution, axes, len(distribution.batch_shape))
    if lifted is None:
        return _draw_each(random.split(key, axes.num_lanes), distribution, axes)
    return _draw_flat(key, lifted, ())


def _apply(transforms: list, value: Array) -> Array:
    for transform in transforms:
        value = transform(value)
    return value


def _draw_flat(key: Array, distribution: Any, sample_shape: tuple[int, ...]) -> Array:
    """`distribution.sample`, with fewer or cheaper random numbers where that is simple."""
    shape = distribution.shape(sample_shape)
    family = type(distribution)
    if family is dist.Normal:
        loc, scale = (jnp.broadcast_to(x, shape) for x in (distribution.loc, distribution.scale))
        return loc + normals(key, shape) * scale
    if family is dist.MultivariateNormal:
        noise = normals(key, shape)
        factor = distribution.scale_tril
        if all(size == 1 for size in factor.shape[:-2]):
            noise = noise @ factor.reshape(factor.shape[-2:]).T
        else:
            noise = jnp.einsum("...ij,...j->...i", factor, noise)
        return jnp.broadcast_to(distribution.loc, shape) + noise
    if issubclass(family, dist.CategoricalProbs | dist.CategoricalLogits):
        probs = distribution.probs
        if probs.shape[-1] <= MAX_UNROLLED:
            return _invert(key, probs, sample_shape + distribution.batch_shape)
    return distribution.sample(key, sample_shape)


def normals(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normals of one flat counter hash; consumes `key`.

    Threefry over the counters 0..n-1, 23 bits to a uniform on (-1, 1), inverse error function:
    the law of `jax.random.normal`, another stream. It takes 4-6 ns a number on a CPU in every
    shape, where `jax.random.normal` takes 6-8 flat and 20-29 with a short last axis. Falls back
    to `jax.random.normal` in double precision and for keys that are not Threefry.

    Example:
        >>> import jax
        >>> noise = normals(jax.random.key(0), (100_000, 3))
        >>> bool(abs(noise.mean()) < 0.01), bool(abs(noise.var() - 1) < 0.02)
        (True, True)
    """
    is_threefry = jax.random.key_impl(key) == "threefry2x32"
    if random.is_enumerating() or not is_threefry or jnp.zeros(()).dtype != jnp.float32:
        return random.normal(key, shape)
    size = math.prod(shape)
    child = random.split(key, 1)[0]  # the key-reuse checker sees the split, not the hash
    half = jnp.arange((size + 1) // 2, dtype=jnp.uint32)
    bits = threefry(jax.random.key_data(child), half, half + jnp.uint32(half.shape[0]))
    uniform = 2 * (mantissa(jnp.stack(bits)) - 1.5) + 2.0**-23
    return (math.sqrt(2) * jax.lax.erf_inv(uniform)).reshape(-1)[:size].reshape(shape)


def log_prob(distribution: Any, value: Array) -> Array:
    """`distribution.log_prob(value)` for a function of one particle.

    Multivariate normals are whitened by the inverse of their factor: the triangular solve that
    NumPyro makes costs 4 to 1000 times more when it is lifted to all particles.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> law = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[2.0, 0.5], [0.5, 1.0]]))
        >>> bool(jnp.isclose(log_prob(law, jnp.ones(2)), law.log_prob(jnp.ones(2))))
        True
    """
    mask = getattr(distribution, "_mask", None)
    if isinstance(mask, jax.Array) and mask.ndim == 0:
        value = jnp.where(mask, value, distribution.support.feasible_like(value))
        return jnp.where(mask, log_prob(distribution.base_dist, value), 0.0)
    family = type(distribution)
    if family is not dist.MultivariateNormal or distribution.batch_shape:
        return distribution.log_prob(value)
    factor = distribution.scale_tril
    size = factor.shape[-1]
    whitening = jax.scipy.linalg.solve_triangular(factor, jnp.eye(size), lower=True)
    noise = (value - distribution.loc) @ whitening.T
    log_scale = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * jnp.sum(noise**2, axis=-1) - log_scale - 0.5 * size * math.log(2 * math.pi)


# -------------------------------------------------------------------- batching a distribution


def _lift(distribution: Any, axes: _Axes, rank: int) -> Any | None:
    """The distribution with a leading axis of lanes, rebuilt from its arguments; None if unknown.

    Arguments are aligned to `rank` batch axes after that of the lanes. All get the full axis of
    lanes: parts of a distribution whose own parameters lack it would be drawn once for all lanes.
    """
    if isinstance(distribution, dist.ExpandedDistribution):
        base = _lift(distribution.base_dist, axes.base_dist, rank)
        return None if base is None else base.expand((axes.num_lanes, *distribution.batch_shape))
    try:
        names = _argument_names(distribution)
        arguments = {name: _lift_argument(distribution, name, axes, rank) for name in names}
        lifted = type(distribution)(**arguments, validate_args=False)
    except (NotImplementedError, TypeError, ValueError):  # not a function of its arguments alone
        return None
    own_rank = len(distribution.batch_shape)
    expected = (axes.num_lanes, *(1,) * (rank - own_rank), *distribution.shape())
    return lifted if lifted.shape() == expected else None


def _argument_names(distribution: Any) -> list[str]:
    if isinstance(distribution, dist.MultivariateNormal):
        return ["loc", "scale_tril"]
    names = type(distribution).__signature__.parameters
    return [name for name in names if name != "validate_args"]


def _lift_argument(distribution: Any, name: str, axes: _Axes, rank: int) -> Any:
    value: Any = getattr(distribution, name, None)
    if isinstance(value, dist.Distribution):
        extra = len(value.batch_shape) - len(distribution.batch_shape)
        lifted = _lift(value, getattr(axes, name), rank + extra)
        if lifted is None:
            raise TypeError(f"argument {name} cannot be rebuilt")
        return lifted
    constraint = distribution.arg_constraints.get(name)
    if constraint is None:
        if not isinstance(value, bool | int):
            raise TypeError(f"argument {name} of {type(distribution).__name__} is not stored")
        return value
    batched = getattr(axes.batched, name, False) is True
    own_shape = jnp.shape(value)[1:] if batched else jnp.shape(value)
    missing = rank - max(len(own_shape) - constraint.event_dim, 0)
    ones = (1,) * missing
    numpy = jnp if isinstance(value, jax.Array) else np
    if batched:
        return value.reshape(axes.num_lanes, *ones, *own_shape)
    if type(distribution) in _BROADCASTING and any(jax.tree.leaves(axes.batched)):
        return numpy.reshape(value, (1, *ones, *own_shape))
    aligned = numpy.reshape(value, (*ones, *own_shape))
    return numpy.broadcast_to(aligned, (axes.num_lanes, *aligned.shape))


# -------------------------------------------------------------------- finitely many outcomes


def _invert(key: Array, probs: Array, shape: tuple[int, ...]) -> Array:
    """Draw indices from `probs` `(*batch, K)`, batch broadcast to `shape`, by one uniform each.

    index = #{k : p_1 + ... + p_k <= U total}. The sums run in one order, so that an outcome of
    probability 0 adds nothing and is never drawn.
    """
    total = ends = 0.0 * probs[..., 0]
    for k in range(probs.shape[-1]):
        total = total + probs[..., k]
    point = random.uniform(key, shape, probs.dtype) * total
    index = jnp.zeros(shape, jnp.int32)
    for k in range(probs.shape[-1] - 1):
        ends = ends + probs[..., k]
        index = index + (ends <= point)
    return index


def _outcomes(distribution: Any) -> tuple[Array, Array]:
    """Support `(K,)` and log-probabilities `(*batch, K)` of a finite distribution."""
    support = distribution.enumerate_support(expand=False).reshape(-1)
    batch = distribution.batch_shape
    log_probs = distribution.log_prob(support.reshape(-1, *(1,) * len(batch)))
    return support, jnp.moveaxis(jnp.broadcast_to(log_probs, (support.shape[0], *batch)), 0, -1)


def _draw_enumerated(key: Array, distribution: Any, axes: _Axes) -> Array:
    """Let the oracle choose the outcomes of all lanes."""
    _refuse_infinite(distribution)
    support, log_probs = axes.vmap(_outcomes, distribution)
    index = random.categorical(key, log_probs)
    rows = jnp.arange(axes.num_lanes).reshape(-1, *(1,) * (index.ndim - 1))
    return support[rows, index]


def _refuse_infinite(distribution: Any) -> None:
    if random.is_enumerating() and not distribution.has_enumerate_support:
        raise ValueError(
            f"{type(distribution).__name__} has infinitely many outcomes and cannot be enumerated: "
            "jurax.ppl.laws needs a process of Categorical, Bernoulli or DiscreteUniform draws"
        )
