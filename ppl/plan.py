"""The structure of a sequential program, found by tracing it once without computing anything."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, PyTree

from jurax.ppl.effects import Scan, Sites, draw, recall, run, run_before_scan, run_step
from jurax.ppl.program import Program


class Shape(NamedTuple):
    """Shape and dtype of an array; `float` and `int` are JAX's default types, in x64 too."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, value: Any) -> "Shape":
        """Of an array or a number."""
        dtype = jnp.result_type(value)
        default = {jnp.result_type(kind): kind for kind in (float, int)}
        return cls(jnp.shape(value), default.get(dtype, dtype))

    def zeros(self) -> Array:
        """An array of this shape."""
        return jnp.zeros(self.shape, self.dtype)


class Carry(NamedTuple):
    """Tree and shapes of the carry of a scan."""

    treedef: Any
    shapes: tuple[Shape, ...]

    def cast(self, carry: PyTree) -> PyTree:
        """The carry with every leaf an array of its dtype."""
        leaves = zip(jax.tree.leaves(carry), self.shapes, strict=True)
        return jax.tree.unflatten(self.treedef, [jnp.asarray(x, s.dtype) for x, s in leaves])

    def zeros(self) -> PyTree:
        """A carry of this shape."""
        return jax.tree.unflatten(self.treedef, [shape.zeros() for shape in self.shapes])


class Plan(NamedTuple):
    """The structure of a program; hashable, equal for data of equal shapes.

    Attributes:
        num_steps: length of the scan.
        parameters: name and shape of each parameter site.
        state: name and shape of each state site before the scan.
        kept: names of state sites that particles keep after step 0, because later steps depend
            on them or because they cannot be read off the carry.
        sources: leaf of the initial carry that holds a state site, for those that are one.
        carry: tree and shapes of the carry.
        latent: latent sites of a step.
        steps: name and shape of each latent and deterministic site of a step.
        aliases: leaf of the new carry that holds a site of a step, for those that are one.
        observed: observed sites and factors.
    """

    num_steps: int
    parameters: tuple[tuple[str, Shape], ...]
    state: tuple[tuple[str, Shape], ...]
    kept: tuple[str, ...]
    sources: tuple[tuple[str, int], ...]
    carry: Carry
    latent: tuple[str, ...]
    steps: tuple[tuple[str, Shape], ...]
    aliases: tuple[tuple[str, int], ...]
    observed: tuple[str, ...]


class _Survey(NamedTuple):
    """One run of a program: its stretches, and the leaves of the carry before and after a step."""

    before: Sites
    step: Sites
    after: Sites
    init: Any
    carry: Any
    length: int


def make_plan(program: Program, state: tuple[str, ...] | None) -> Plan:
    """Trace the program and describe it; `state` overrides the rule of what is state."""
    found: list[Plan] = []
    jax.eval_shape(lambda: found.append(_describe(_survey(program), state)))
    return found[0]._replace(kept=_kept(program, found[0]))


def _survey(program: Program) -> _Survey:
    """Run everything before the scan, one step of it, and what comes after it."""
    seen: dict[str, Any] = {}

    def at_scan(scan: Scan) -> tuple[Any, Any]:
        if scan.length < 1:
            raise ValueError("the scan of this program has length 0: a process needs one step")
        carry, outputs = scan.step(scan.init, 0)
        seen.update(init=scan.init, carry=carry, length=scan.length)
        stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (scan.length, *jnp.shape(x))), outputs)
        return carry, stacked

    stretches = run(program, draw(jax.random.key(0), 0), at_scan)
    if len(stretches) == 1:
        raise ValueError(
            f"{program.name} has no numpyro.contrib.control_flow.scan, so it has no steps: write "
            "its loop over time as a scan, or run the whole program, bind(model, ...), by NUTS, "
            "MCMC, TemperedSMC or IBIS"
        )
    before, step, after = stretches
    late = [*after.latent, *after.observed]
    if late:
        raise NotImplementedError(
            f"sites {late} come after the scan: move them before it, or into its body (with an "
            "`x` of xs that marks the last step)"
        )
    return _Survey(before, step, after, **seen)


def _describe(survey: _Survey, state: tuple[str, ...] | None) -> Plan:
    init = jax.tree.leaves(survey.init)
    carry = jax.tree.leaves(survey.carry)
    before, step = survey.before, survey.step
    sources = _positions(before.latent, init)
    if state is None:
        state = tuple(sources)
    unknown = [name for name in state if name not in before.latent]
    if unknown:
        raise ValueError(
            f"state={unknown} are not latent sites before the scan; these are {[*before.latent]}"
        )
    shapes = {name: Shape.of(value) for name, value in before.latent.items()}
    sites = step.latent | step.deterministic
    return Plan(
        num_steps=survey.length,
        parameters=tuple((n, s) for n, s in shapes.items() if n not in state),
        state=tuple((n, s) for n, s in shapes.items() if n in state),
        kept=(),
        sources=tuple((n, i) for n, i in sources.items() if n in state),
        carry=_describe_carry(survey.init, survey.carry),
        latent=tuple(step.latent),
        steps=tuple((name, Shape.of(value)) for name, value in sites.items()),
        aliases=tuple(_positions(sites, carry).items()),
        observed=(*before.observed, *step.observed),
    )


def _positions(values: dict[str, Any], leaves: list) -> dict[str, int]:
    """For each value that is itself one of the leaves: which."""
    found = {}
    for name, value in values.items():
        for index, leaf in enumerate(leaves):
            if leaf is value:
                found.setdefault(name, index)
    return found


def _describe_carry(init: PyTree, carry: PyTree) -> Carry:
    """Tree and shapes of the carry; weakly typed initial values take the type of a step's."""
    if jax.tree.structure(init) != jax.tree.structure(carry):
        raise ValueError(
            "the body of the scan must return a carry of the same structure as the initial one: "
            f"{jax.tree.structure(init)} became {jax.tree.structure(carry)}"
        )
    shapes = []
    for old, new in zip(jax.tree.leaves(init), jax.tree.leaves(carry), strict=True):
        is_weak = not hasattr(old, "dtype") or getattr(old, "weak_type", False)
        before, after = (f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (old, new))
        same_dtype = is_weak or jnp.result_type(old) == jnp.result_type(new)
        if jnp.shape(old) != jnp.shape(new) or not same_dtype:
            raise ValueError(
                f"a leaf of the carry changes in a step from {before} to {after}: "
                "give the initial carry the shape and dtype of later ones"
            )
        shapes.append(Shape.of(new))
    return Carry(jax.tree.structure(init), tuple(shapes))


def _kept(program: Program, plan: Plan) -> tuple[str, ...]:
    """State sites that later steps depend on, or that no recorded leaf of the carry holds."""

    def later(state: dict[str, Array]) -> Any:
        before = {name: shape.zeros() for name, shape in plan.parameters} | state
        carry = plan.carry.zeros()
        carry, sites = run_step(program, before, carry, 0, draw(jax.random.key(0), 0))
        fixed = run_before_scan(program, recall(before))[0].deterministic
        return carry, sites.latent, sites.deterministic, sites.log_weight, fixed

    used = used_inputs(later, {name: shape.zeros() for name, shape in plan.state})
    recorded = {index for _, index in plan.aliases}
    readable = {name for name, index in plan.sources if index in recorded}
    return tuple(name for name, _ in plan.state if used[name] or name not in readable)


def used_inputs(function: Callable, inputs: dict[str, Array]) -> dict[str, bool]:
    """Which inputs the results of `function(inputs)` depend on, by name.

    Functions compiled by the user count as depending on all of their inputs.

    Example:
        >>> import jax.numpy as jnp
        >>> used_inputs(lambda v: v["a"] + 1, {"a": jnp.zeros(()), "b": jnp.zeros(())})
        {'a': True, 'b': False}
    """
    jaxpr = jax.make_jaxpr(function)(inputs).jaxpr
    needed = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or needed.intersection(equation.outvars):
            needed.update(v for v in equation.invars if isinstance(v, Var))
    return {name: v in needed for name, v in zip(sorted(inputs), jaxpr.invars, strict=True)}
