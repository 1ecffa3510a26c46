"""Programs of the family: likelihood and mode are those of the fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.models.crowd import GLAD, Answers, DawidSkene, MajorityVote, OneCoinDawidSkene
from jurax.ppl.unconstrained import Unconstrained
from tests.models.crowd.crowds import draw_top_two

# The members, the names of their sites, and where the fitted values are.
SITES = {
    "one coin": (
        lambda: OneCoinDawidSkene(n_iter=3000, tol=0.0),
        lambda m: {"accuracy": m.skills_.to_numpy()},
    ),
    "dawid-skene": (
        lambda: DawidSkene(n_iter=3000, tol=0.0, priors="uniform"),
        lambda m: {"matrices": m.errors_.to_numpy().reshape(8, 3, 3).swapaxes(1, 2)},
    ),
    "glad": (
        lambda: GLAD(n_iter=3000, tol=0.0),
        lambda m: {"ability": m.alphas_.to_numpy(), "easiness": m.betas_.to_numpy()},
    ),
}


@pytest.mark.rank_promotion("allow")  # numpyro's Beta and Dirichlet
@pytest.mark.parametrize("name", SITES)
def test_the_fit_is_the_mode_of_the_program(name: str, x64) -> None:
    """The slope of log prior + log likelihood in the sites vanishes at the fit."""
    table = draw_top_two(np.random.default_rng(0), 30, 8, 3, 0.7)[0]
    answers = Answers(table, classes=range(3))
    make, values_of = SITES[name]
    model = make().fit(answers)
    view = Unconstrained.of(model.program(answers))
    values = {site: jnp.asarray(value) for site, value in values_of(model).items()}
    x = view.flatten(values)
    log_likelihood = float(view.log_likelihood(x))
    if name == "glad":
        log_likelihood += float(-0.5 * sum(jnp.sum((v - 1) ** 2) for v in values.values()))
    found = model.estimate_.log_likelihood * len(answers)
    assert log_likelihood == pytest.approx(found, rel=1e-6)

    def density(x):  # in the constrained values: without the Jacobian
        parts = view.evaluate(x)
        return parts.log_prior + parts.log_likelihood

    np.testing.assert_allclose(jax.grad(density)(x), 0, atol=2e-3)


def test_votes_have_no_program() -> None:
    answers = Answers({"task": [1, 1], "worker": [1, 2], "label": ["a", "b"]})
    with pytest.raises(ValueError, match="MajorityVote has no likelihood"):
        MajorityVote().program(answers)
