"""A NumPyro program with a scan, as a process.

    x_0   everything before `numpyro.contrib.control_flow.scan`
    x_t   step t = 1..T of the scan: latent sites of the body are drawn from their distributions,
          observed sites and factors are the weight G_t (`jurax.ppl.effects`)

The whole program is run again for every extension, for one particle, with the sites before the
scan set to the particle's values and the scan replaced by one step of its body; `vmap` lifts it.
What the step does not need is removed by the compiler. Methods are compiled once for each shape:
called one by one they are fast too, and NumPyro's checks of arguments see no placeholder.

Supported: plates, masks, scales, factors and `condition` / `substitute` with dicts of stacked
values, inside the body and around the scan; `obs_mask`; missing observations (NaN, see
`jurax.ppl.program`); discrete latent sites, which are drawn whatever their `infer` says; any pytree
as carry and xs. Refused by name: no scan or two, nested scans, `cond`, `reverse=True`, sampled
sites after the scan, improper priors, `numpyro.param`, `prng_key`, subsampled plates, plates around
the scan.

A latent site before the scan is *state* iff its value is itself a leaf of the initial carry; it
belongs to x_0. Every other is a *parameter*: drawn from its prior and carried by the particle.
Shape letters: N particles, T steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from jurax.ppl.effects import Choose, Sites, draw, recall, run_before_scan, run_step
from jurax.ppl.plan import Plan, make_plan, used_inputs
from jurax.ppl.process import AbstractProcess
from jurax.ppl.program import Program, bind, check_values


def sequential(
    model: Callable, /, *args: Any, state: Sequence[str] | None = None, **kwargs: Any
) -> "SequentialProgram":
    """Turn an unmodified NumPyro program that uses `scan` into a process.

    Args:
        model: a NumPyro program with one `numpyro.contrib.control_flow.scan`, or a bound one.
        *args: arguments of the model, as in `bind`.
        state: names of the latent sites before the scan that are state, in place of the rule:
            state iff the site's value is itself a leaf of the initial carry.
        **kwargs: keyword arguments of the model.

    Returns:
        A process of T = length of the scan extensions. Its particles carry the carry of the scan
        and the parameters. An `xs` that depends on parameters is computed again at every step, for
        all times: let the body compute it from x_t instead.

    Raises:
        ValueError: if the program has no scan, or `state` names no latent site before it.
        NotImplementedError: for sampled sites after the scan, two scans, nested scans, `cond`,
            `reverse=True`, improper priors, `numpyro.param`, subsampled plates; the message names
            the site and says what to do.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from numpyro.contrib.control_flow import scan
        >>> def walk(y):
        ...     noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        ...     x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))
        ...     def step(x, y_t):
        ...         x = numpyro.sample("x", dist.Normal(x, 1.0))
        ...         numpyro.sample("y", dist.Normal(x, noise), obs=y_t)
        ...         return x, None
        ...     scan(step, x_0, y)
        >>> process = sequential(walk, jnp.array([0.3, 0.1, 0.4]))
        >>> process.num_steps, process.parameters
        (3, ('noise',))
        >>> particles, log_weights = process.init(jax.random.key(0), 5)
        >>> particles, log_increments = process.extend(jax.random.key(1), particles, 1)
        >>> sorted(process.output(particles)), log_increments.shape
        (['noise', 'x'], (5,))
        >>> process.at({"noise": jnp.array(0.5)}).parameters
        ()
    """
    if isinstance(model, Program):
        if args or kwargs:
            raise TypeError("this program is already bound to its arguments: pass the model itself")
        program = model
    else:
        program = bind(model, *args, **kwargs)
    state = None if state is None else tuple(state)
    return SequentialProgram(program, make_plan(program, state))


class Particle(eqx.Module):
    """What one particle of a program carries.

    Attributes:
        parameters: values of the parameter sites.
        initial: values of state sites of x_0 that later steps or records need.
        carry: carry of the scan.
        sites: values of the sites of the last step that are not leaves of the carry; zeros at 0.
    """

    parameters: dict[str, Array]
    initial: dict[str, Array]
    carry: PyTree
    sites: dict[str, Array]


class SequentialProgram(AbstractProcess):
    """A NumPyro program as a process; built by `sequential`.

    Attributes:
        program: the bound program.
        plan: its structure.
        weighted: False for the process of `prior`, whose potentials are 1.
    """

    program: Program
    plan: Plan = eqx.field(static=True)
    weighted: bool = eqx.field(static=True)

    def __init__(self, program: Program, plan: Plan, weighted: bool = True):
        self.program = program
        self.plan = plan
        self.weighted = weighted

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """T, the length of the scan."""
        return self.plan.num_steps

    @property
    def target(self) -> str:  # type: ignore[override]
        """The density of the program's latent sites given its observations."""
        latent = [n for n, _ in self.plan.parameters + self.plan.state]
        latent += [f"{n}[1:{self.num_steps}]" for n in self.plan.latent]
        given = [*self.plan.observed] if self.weighted else []
        given += sorted(self.program.fixed)
        bar = f" | {', '.join(given)}" if given else ""
        return f"p({', '.join(latent)}{bar}) of {self.program.name}"

    # ------------------------------------------------------------ the process

    @eqx.filter_jit
    def init(self, key: Array, num_particles: int) -> tuple[Particle, Float[Array, " N"]]:
        """Draw x_0: all sites before the scan; consumes `key`."""

        def start(lane: Array) -> tuple[Particle, Array]:
            particle, sites = self._start(draw(key, lane))
            return particle, sites.log_weight

        return self._weighed(*jax.vmap(start)(jnp.arange(num_particles)))

    def extend(
        self, key: Array, particles: Particle, t: Int[Array, "..."] | int
    ) -> tuple[Particle, Float[Array, " N"]]:
        """Draw the sites of step t and weigh by its observations; consumes `key`."""
        return self._extend(key, particles, jnp.asarray(t))

    @eqx.filter_jit
    def _extend(self, key: Array, particles: Particle, t: Array) -> tuple[Particle, Array]:
        def move(particle: Particle, t: Array, lane: Array) -> tuple[Particle, Array]:
            particle, sites = self._move(particle, t, draw(key, lane))
            return particle, sites.log_weight

        rows = jnp.arange(self.row_shape(particles)[0])
        return self._weighed(*_over_particles(move, t)(particles, t, rows))

    def replay(
        self, particles: Particle | None, record: dict[str, Array], t: Int[Array, "..."] | int
    ) -> tuple[Particle, Float[Array, " N"], Float[Array, " N"]]:
        """Move to the latent sites of `record`; `log_probs` are their log-densities.

        With t = 0 and `particles` None the move is the initial one; parameters must be fixed.
        """
        return self._replay(particles, record, jnp.asarray(t))

    @eqx.filter_jit
    def _replay(
        self, particles: Particle | None, record: dict[str, Array], t: Array
    ) -> tuple[Particle, Array, Array]:
        def result(particle: Particle, sites: Sites) -> tuple[Particle, Array, Array]:
            log_prob = sum(sites.log_probs.values(), start=jnp.zeros(()))
            return particle, sites.log_weight, log_prob

        def start(record: dict) -> tuple[Particle, Array, Array]:
            return result(*self._start(recall(self._initial_sites(record))))

        def move(particle: Particle, t: Array, record: dict) -> tuple[Particle, Array, Array]:
            return result(*self._move(particle, t, recall(record)))

        if particles is None:
            moved, log_increments, log_probs = jax.vmap(start)(record)
        else:
            moved, log_increments, log_probs = _over_particles(move, t)(particles, t, record)
        return *self._weighed(moved, log_increments), log_probs

    def record(self, particles: Particle, t: Int[Array, "..."] | int) -> dict[str, Array]:
        """Sites of step t by name, and those of x_0 that cannot be read off the carry."""
        del t
        return {**self._step_sites(particles), **particles.initial}

    @eqx.filter_jit
    def output(self, particles: Particle) -> dict[str, Array]:
        """Values by site name: parameters, sites of the last step, what is kept of x_0."""

        def fixed(particle: Particle) -> dict[str, Array]:
            sites, _ = run_before_scan(self.program, recall(self._sites_before(particle)))
            return sites.deterministic

        values = {**particles.parameters, **jax.vmap(fixed)(particles)}
        return {**values, **particles.initial, **self._step_sites(particles)}

    @property
    def layout(self) -> tuple[tuple[str, str, str], ...]:
        """Where trajectories find a site: triples (site, name, part).

        Part is `steps` (records 1..T of `name`), `initial` (record 0) or `final` (the final
        particles).
        """
        plan = self.plan
        held = {index: name for name, index in plan.aliases}
        read = [(n, n if n in plan.kept else held[i], "initial") for n, i in plan.sources]
        read += [(n, n, "initial") for n in plan.kept if n not in dict(plan.sources)]
        steps = [(name, name, "steps") for name, _ in plan.steps]
        return (*((n, n, "final") for n in self.parameters), *read, *steps)

    def prior(self) -> "SequentialProgram":
        """The same draws, every weight 1."""
        return SequentialProgram(self.program, self.plan, weighted=False)

    # ------------------------------------------------------------ a family of processes

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the sites that `at` fixes."""
        return tuple(name for name, _ in self.plan.parameters)

    def at(self, values: Mapping[str, ArrayLike]) -> "SequentialProgram":
        """The process with parameters fixed; its evidence is p(observations | values).

        Args:
            values: by site name; parameters without a value stay random.

        Raises:
            ValueError: for a name that is not a parameter, or a value of another shape.
        """
        fixed = check_values(values, dict(self.plan.parameters), "parameters")
        program = eqx.tree_at(lambda p: p.fixed, self.program, {**self.program.fixed, **fixed})
        state = tuple(name for name, _ in self.plan.state)
        return SequentialProgram(program, make_plan(program, state), self.weighted)

    def log_prior(self, values: Mapping[str, ArrayLike]) -> Float[Array, ""]:
        """Log prior density of all parameters at `values`.

        Raises:
            ValueError: for missing or unknown names.
            NotImplementedError: if the prior of a parameter depends on a state site.
        """
        values = check_values(values, dict(self.plan.parameters), "parameters")
        absent = sorted(set(self.parameters) - set(values))
        if absent:
            raise ValueError(f"log_prior needs a value of every parameter; absent: {absent}")
        return self._log_prior(values)

    @eqx.filter_jit
    def _log_prior(self, values: dict[str, Array]) -> Array:
        def density(state: dict) -> Array:
            sites, _ = run_before_scan(self.program, recall({**values, **state}))
            return sum((sites.log_probs[name] for name in self.parameters), start=jnp.zeros(()))

        state = {name: shape.zeros() for name, shape in self.plan.state}
        depends = [name for name, used in used_inputs(density, state).items() if used]
        if depends:
            raise NotImplementedError(
                f"the prior of a parameter depends on the state sites {depends}, so parameters "
                "have no prior of their own: say which sites are state by sequential(..., state=)"
            )
        return density(state)

    # ------------------------------------------------------------ one particle

    def _start(self, choose: Choose) -> tuple[Particle, Sites]:
        plan = self.plan
        sites, carry = run_before_scan(self.program, choose)
        aliases = dict(plan.aliases)
        particle = Particle(
            parameters={name: sites.latent[name] for name, _ in plan.parameters},
            initial={name: sites.latent[name] for name in plan.kept},
            carry=plan.carry.cast(carry),
            sites={name: shape.zeros() for name, shape in plan.steps if name not in aliases},
        )
        return particle, sites

    def _move(self, particle: Particle, t: Array, choose: Choose) -> tuple[Particle, Sites]:
        before = self._sites_before(particle)
        carry, sites = run_step(self.program, before, particle.carry, t - 1, choose)
        values = sites.latent | sites.deterministic
        return Particle(
            parameters=particle.parameters,
            initial=particle.initial,
            carry=self.plan.carry.cast(carry),
            sites={name: jnp.asarray(values[name], x.dtype) for name, x in particle.sites.items()},
        ), sites

    def _sites_before(self, particle: Particle) -> dict[str, Array]:
        """Values of the sites before the scan; zeros for those that nothing depends on."""
        unused = {name: shape.zeros() for name, shape in self.plan.state}
        return unused | particle.parameters | particle.initial

    # ------------------------------------------------------------ helpers

    def _weighed(self, particles: Particle, log_weights: Array) -> tuple[Particle, Array]:
        if not self.weighted:
            log_weights = jnp.zeros_like(log_weights)
        return particles, log_weights

    def _step_sites(self, particles: Particle) -> dict[str, Array]:
        leaves = jax.tree.leaves(particles.carry)
        aliased = {name: leaves[index] for name, index in self.plan.aliases}
        return {name: (aliased | particles.sites)[name] for name, _ in self.plan.steps}

    def _initial_sites(self, record: dict[str, Array]) -> dict[str, Array]:
        if self.plan.parameters:
            raise ValueError(
                "replay of the initial move needs fixed parameters: use process.at(values); "
                f"random are {list(self.parameters)}"
            )
        leaf_name = {index: name for name, index in self.plan.aliases}
        kept = {name: record[name] for name in self.plan.kept}
        return kept | {n: record[leaf_name[i]] for n, i in self.plan.sources if n not in kept}


def _over_particles(function: Callable, t: Array) -> Callable:
    """Lift a function of (particle, t, row); `t` is common or one for each row."""
    return jax.vmap(function, in_axes=(0, 0 if jnp.ndim(t) else None, 0))
