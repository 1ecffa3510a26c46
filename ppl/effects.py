"""Effect handlers that run a NumPyro program site by site.

`Interpreter` is the outermost handler: it gives every latent site its value, adds up the weights
of observed sites and factors, and hands the one `scan` to its caller, who may run one step of the
body. What it cannot run it refuses, with the name of the site and what to do.

The weight of a site with value v, distribution p, scale s and mask m:

    observed, factor   m s log p(v)
    latent, drawn      (s - 1) log p(v): the draw already has density p

A latent site under a mask is drawn from p and weighs nothing: where the mask is off it is an
auxiliary variable. A Delta with a log density weighs it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.primitives import Messenger

from jurax.ppl import lanes, random

Choose = Callable[[str, dist.Distribution], Array]


class Scan(NamedTuple):
    """The arguments of the program's `scan`, with the data of `condition` handlers around it."""

    body: Callable
    init: Any
    xs: Any
    length: int
    substitutions: list

    def step(self, carry: Any, index: Array | int) -> tuple[Any, Any]:
        """Run the body once on `xs[index]`; its sites go to the handlers that are active."""
        x = jax.tree.map(lambda leaf: leaf[index], self.xs)
        with _Step(self.substitutions, index):
            return self.body(carry, x)


class Sites:
    """What a stretch of a program did.

    Attributes:
        latent: values of latent sites by name.
        deterministic: values of deterministic sites by name.
        observed: names of observed sites and factors.
        log_probs: log-densities of the latent draws by name.
        log_weight: sum of the weights.
    """

    def __init__(self):
        self.latent: dict[str, Array] = {}
        self.deterministic: dict[str, Array] = {}
        self.observed: list[str] = []
        self.log_probs: dict[str, Array] = {}
        self.log_weight: Float[Array, ""] = jnp.zeros(())


class Interpreter(Messenger):
    """Run a program; `choose(name, distribution)` gives the values of latent sites.

    Args:
        choose: value of a latent site that no inner handler has fixed.
        at_scan: called with the `Scan` while the handlers around it are active; returns what the
            scan returns to the program, or raises `Stop` to end the run.

    Attributes:
        stretches: the sites before the scan, of its step, and after it, as far as the run came.
    """

    def __init__(self, choose: Choose, at_scan: Callable[[Scan], tuple[Any, Any]]):
        super().__init__()
        self.choose = choose
        self.at_scan = at_scan
        self.stretches = [Sites()]

    def process_message(self, msg: dict) -> None:
        """Decide one message; handlers outside never see it."""
        msg["stop"] = True
        kind = msg["type"]
        if kind == "sample":
            self._sample(msg)
        elif kind == "control_flow":
            self._control_flow(msg)
        elif kind == "deterministic":
            self._claim(msg["name"])
            self.stretches[-1].deterministic[msg["name"]] = msg["value"]
        elif kind in _REFUSED and msg.get("value") is None:
            raise NotImplementedError(f"{_REFUSED[kind].format(name=msg.get('name'))}")

    def _sample(self, msg: dict) -> None:
        name, sites = msg["name"], self.stretches[-1]
        self._claim(name)
        distribution = msg["fn"]
        if msg["kwargs"].get("sample_shape"):
            distribution = distribution.expand_by(msg["kwargs"]["sample_shape"])
            msg["kwargs"]["sample_shape"] = ()
        scale = msg.get("scale")
        if msg["value"] is not None:
            log_prob = log_prob_observed(distribution, jnp.asarray(msg["value"]))
            sites.observed.append(name)
            sites.log_weight += log_prob if scale is None else scale * log_prob
            return
        law = unmasked(distribution)
        msg["value"] = value = self.choose(name, law)
        sites.latent[name] = value
        sites.log_probs[name] = jnp.sum(lanes.log_prob(law, value))
        if scale is not None:
            sites.log_weight += (scale - 1) * jnp.sum(distribution.log_prob(value))
        if isinstance(law, dist.Delta):
            sites.log_weight += jnp.sum(distribution.log_prob(value))

    def _control_flow(self, msg: dict) -> None:
        if msg["fn"] is not scan_wrapper:
            raise NotImplementedError(
                "a numpyro `cond` cannot be run by particles: compute both branches and choose by "
                "jnp.where"
            )
        if len(self.stretches) > 1:
            where = "inside the scan (nested)" if msg.get("_in_step") else "after another one"
            raise NotImplementedError(
                f"this program has a scan {where}; a process has one scan: merge the two bodies "
                "into one, or unroll the inner loop"
            )
        body, init, xs, length, reverse = msg["args"]
        if reverse:
            raise NotImplementedError(
                "scan(..., reverse=True) is not supported: flip xs and scan forwards"
            )
        if length is None:
            length = jnp.shape(jax.tree.leaves(xs)[0])[0]
        self.stretches.append(Sites())
        scan = Scan(body, init, xs, length, list(msg["kwargs"]["substitute_stack"]))
        carry, outputs = self.at_scan(scan)
        self.stretches.append(Sites())
        msg["value"] = ((length, None, carry), (_NoTrace(), outputs))

    def _claim(self, name: str) -> None:
        """Site names are unique in the whole program."""
        for sites in self.stretches:
            if name in {*sites.latent, *sites.deterministic, *sites.observed}:
                raise ValueError(f"two sites of this program are called {name!r}: rename one")


class Stop(BaseException):
    """Ends the run of a program at its scan; not an error."""


class _NoTrace:
    """A scan that left no stacked sites behind."""

    trace: dict = {}


class _Step(Messenger):
    """The innermost handler of a step: `condition` and `substitute` data of this step.

    Marks messages so that handlers around the scan do not substitute whole series.
    """

    def __init__(self, substitutions: list, index: Array | int):
        super().__init__()
        self.substitutions = substitutions
        self.index = index

    def process_message(self, msg: dict) -> None:
        """Fix the value of a site that the data name."""
        msg["_control_flow_done"] = msg["_in_step"] = True
        if msg["type"] != "sample":
            return
        for kind, data in self.substitutions:
            if msg["value"] is not None and kind != "condition":
                continue  # as in numpyro, `condition` replaces observations, `substitute` does not
            if not isinstance(data, dict):
                raise NotImplementedError(
                    f"handlers.{kind} around a scan is supported with a dict of stacked values, "
                    "not with a function or a trace"
                )
            if msg["name"] in data:
                msg["value"] = jnp.asarray(data[msg["name"]])[self.index]
                msg["is_observed"] = kind == "condition"


# -------------------------------------------------------------------- runs


def run(model: Callable[[], Any], choose: Choose, at_scan: Callable) -> list[Sites]:
    """Run a program to its end or to `Stop`; return its stretches."""
    interpreter = Interpreter(choose, at_scan)
    try:
        with interpreter:
            model()
    except Stop:
        pass
    return interpreter.stretches


def run_before_scan(model: Callable[[], Any], choose: Choose) -> tuple[Sites, Any]:
    """Run up to the scan; return the sites and the initial carry."""
    found: list = []

    def at_scan(scan: Scan) -> NoReturn:
        found.append(scan.init)
        raise Stop

    return run(model, choose, at_scan)[0], found[0]


def run_step(
    model: Callable[[], Any], before: dict[str, Array], carry: Any, index: Any, choose: Choose
) -> tuple[Any, Sites]:
    """Run one step of the scan, sites before it at the values `before`."""
    chooser = recall(before)
    found: list = []

    def at_scan(scan: Scan) -> NoReturn:
        nonlocal chooser
        chooser = choose
        found.append(scan.step(carry, index)[0])
        raise Stop

    stretches = run(model, lambda name, law: chooser(name, law), at_scan)
    return found[0], stretches[1]


def draw(key: Array, lane: Array | int) -> Choose:
    """Values of latent sites by draws; `key` is shared by all lanes and split for each site."""

    def choose(name: str, distribution: dist.Distribution) -> Array:
        nonlocal key
        key, key_site = random.split(key)
        if is_improper(distribution):
            raise NotImplementedError(
                f"site {name!r} has an improper prior and cannot be drawn: give it a proper one, "
                "or fix it, bind(model, ...).at({...})"
            )
        return lanes.sample(distribution, key_site, jnp.asarray(lane))

    return choose


def recall(values: dict[str, Array]) -> Choose:
    """Values of latent sites as given."""

    def choose(name: str, distribution: dist.Distribution) -> Array:
        del distribution
        return values[name]

    return choose


_REFUSED = {
    "plate": "plate {name!r} draws a subsample; particles need every row: leave out subsample_size",
    "param": "numpyro.param site {name!r} has no prior: make it a numpyro.sample site, or fix it "
    "by numpyro.handlers.substitute(model, {{{name!r}: value}})",
    "prng_key": "numpyro.prng_key() draws outside of sites: draw through numpyro.sample",
    "mutable": "numpyro.mutable site {name!r} is hidden state: put it into the carry of the scan",
}


def unmasked(distribution: Any) -> Any:
    """The law that a masked site is drawn from."""
    while isinstance(distribution, dist.MaskedDistribution):
        distribution = distribution.base_dist
    return distribution


def is_improper(distribution: Any) -> bool:
    """Whether a distribution has no draws."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, dist.ImproperUniform)


def mask_missing(distribution: Any, value: ArrayLike) -> Any:
    """The distribution with observations masked whose whole event is NaN.

    An event that is NaN in part keeps its density, which is not finite: leaving out components
    would be another model.
    """
    value = jnp.asarray(value)
    if value.size == 0 or not jnp.issubdtype(value.dtype, jnp.floating):  # factors have size 0
        return distribution
    axes = tuple(range(value.ndim - distribution.event_dim, value.ndim))
    return distribution.mask(~jnp.all(jnp.isnan(value), axis=axes))


def log_prob_observed(distribution: Any, value: Array) -> Float[Array, ""]:
    """Log-density of an observation whose missing events are masked; NaN if one is NaN in part."""
    log_prob = jnp.sum(lanes.log_prob(distribution, value))
    if value.size == 0 or not jnp.issubdtype(value.dtype, jnp.floating):
        return log_prob
    axes = tuple(range(value.ndim - distribution.event_dim, value.ndim))
    is_nan = jnp.isnan(value)
    in_part = jnp.any(is_nan, axis=axes) & ~jnp.all(is_nan, axis=axes)
    return jnp.where(jnp.any(in_part), jnp.nan, log_prob)


class MissingObservations(Messenger):
    """Gives every algorithm the same reading of NaN observations: missing, weight 1."""

    def process_message(self, msg: dict) -> None:
        """Mask missing observations of an observed site."""
        if msg["type"] == "sample" and msg["value"] is not None and msg["is_observed"]:
            msg["fn"] = mask_missing(msg["fn"], msg["value"])
