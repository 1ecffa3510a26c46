"""Reference models: empty series, and parameters and data that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import ParticleFilter, infer
from jurax.models.state_space import HiddenMarkovModel, LinearGaussian, StochasticVolatility

EYE = np.eye(2)
EMPTY = {
    "linear-Gaussian": lambda: LinearGaussian(
        jnp.zeros((0, 2)), EYE, EYE, EYE, EYE, jnp.zeros(2), EYE
    ),
    "volatility": lambda: StochasticVolatility(jnp.zeros(0)),
    "hidden Markov": lambda: HiddenMarkovModel(jnp.zeros(0, int), jnp.array([0.5, 0.5]), EYE, EYE),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_series_has_evidence_one(name: str, key: Array) -> None:
    model = EMPTY[name]()
    posterior = infer(key, model, ParticleFilter(4))
    assert float(posterior.log_evidence) == 0.0 == float(model.log_evidence())
    assert posterior.status == "ok" and int(posterior.info["num_steps"]) == 0


def linear_gaussian(**change) -> LinearGaussian:
    right = dict(
        observations=np.zeros((3, 2)),
        transition_matrix=EYE,
        transition_covariance=EYE,
        observation_matrix=EYE,
        observation_covariance=EYE,
        initial_mean=np.zeros(2),
        initial_covariance=EYE,
    )
    return LinearGaussian(**{name: jnp.asarray(x) for name, x in (right | change).items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": [[0.0, 0.0], [1.0, np.nan]]}, "row 1 is NaN in part"),
        ({"observations": [[0.0, 0.0], [np.inf, 0.0]]}, "row 1 is infinite"),
        ({"transition_covariance": [[1.0, 2.0], [2.0, 1.0]]}, "eigenvalues from -1 to 3"),
        ({"observation_covariance": [[1.0, 0.5], [0.0, 1.0]]}, "must be symmetric"),
        ({"initial_covariance": [[1.0, np.nan], [np.nan, 1.0]]}, "initial_covariance must be"),
    ],
)
def test_wrong_linear_gaussian_models_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_gaussian(**{name: np.asarray(x) for name, x in change.items()})


def test_missing_rows_are_allowed() -> None:
    observations = np.array([[0.0, 1.0], [np.nan, np.nan]])
    assert np.isfinite(linear_gaussian(observations=observations).log_evidence())


def test_traced_parameters_pass() -> None:
    def evidence(scale: Array) -> Array:
        return StochasticVolatility(jnp.zeros(2), scale=scale).log_evidence()

    assert np.isfinite(jax.grad(evidence)(0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"persistence": 1.0}, r"persistence must lie in \(-1, 1\), got 1"),
        ({"scale": 0.0}, r"scale must lie in \(0, inf\)"),
        ({"mean": np.nan}, "mean must lie in"),
        ({"observations": jnp.array([0.0, np.inf])}, "row 1 is infinite"),
    ],
)
def test_wrong_volatility_models_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StochasticVolatility(**{"observations": jnp.zeros(2), **options})
