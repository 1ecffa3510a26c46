"""Lane-keyed draws have the law of the distribution, independently in every lane."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.ppl import lanes, random
from tests.statistics import assert_estimate, assert_mean

pytestmark = pytest.mark.rank_promotion("allow")  # NumPyro's own draws, the reference

N = 20_000
THREE = jnp.arange(1.0, 4.0)
MATRIX = jnp.array([[2.0, 0.5], [0.5, 1.0]])
FACTOR = jnp.array([[1.4, 0.0], [0.3, 0.9]])
WEIGHTS = jnp.array([0.3, 0.7])
AFFINE = dist.transforms.AffineTransform

# Each entry: a distribution that depends on a number p of the lane, p = 1 or 2.
COMMON = {
    "Normal": lambda p: dist.Normal(p, 1.0),
    "Normal, vector": lambda p: dist.Normal(p, THREE),
    "Normal, plates": lambda p: dist.Normal(p * jnp.ones((2, 1)), 2.0).expand((3, 2, 2)),
    "MultivariateNormal": lambda p: dist.MultivariateNormal(p * jnp.ones(2), MATRIX),
    "Gamma": lambda p: dist.Gamma(p, 2.0),
    "Poisson": lambda p: dist.Poisson(p),
    "Categorical": lambda p: dist.Categorical(probs=jnp.stack([p, 1.0, 0.0, 2.0]) / (p + 3)),
    "Categorical, logits": lambda p: dist.Categorical(logits=jnp.stack([p, 1.0, 2.0])),
    "Bernoulli": lambda p: dist.Bernoulli(probs=p / 3),
    "Beta": lambda p: dist.Beta(p, 2.0),
    "StudentT": lambda p: dist.StudentT(8.0, p, 1.0),
    "LogNormal": lambda p: dist.LogNormal(p / 4, 0.5),
    "Transformed": lambda p: dist.TransformedDistribution(dist.Normal(p, 1.0), [AFFINE(p, 2.0)]),
    "Transformed, event": lambda p: dist.TransformedDistribution(
        dist.Normal(jnp.zeros(3), 1.0).to_event(1), [AFFINE(p, 2.0)]
    ),
    "Dirichlet": lambda p: dist.Dirichlet(p * THREE),
    "TruncatedNormal": lambda p: dist.TruncatedNormal(p, 1.0, low=0.0, high=3.0),
    "TruncatedNormal, high": lambda p: dist.TruncatedNormal(0.0, 1.0, high=p),
    "Delta": lambda p: dist.Delta(p),
    "Mixture": lambda p: dist.MixtureSameFamily(
        dist.Categorical(probs=WEIGHTS), dist.Normal(jnp.stack([p, -p]), 1.0)
    ),
    "Uniform": lambda p: dist.Uniform(p, p + 2),
    "masked": lambda p: dist.Normal(p, 1.0).mask(p > 1),
}
MORE = {
    "StudentT, shared df": lambda p: dist.StudentT(8.0, 0.0, p),
    "Normal, scale": lambda p: dist.Normal(1.0, p),
    "Normal, shared": lambda p: dist.Normal(0.0, 2.0),
    "Normal, event": lambda p: dist.Normal(p, THREE).to_event(1),
    "Normal, plate": lambda p: dist.Normal(p, 2.0).expand((3,)),
    "Categorical, plate": lambda p: dist.Categorical(logits=jnp.stack([p, 1.0])).expand((2,)),
    "Bernoulli, logits": lambda p: dist.Bernoulli(logits=p),
    "TruncatedNormal, low": lambda p: dist.TruncatedNormal(0.0, p, low=0.0),
    "MultivariateNormal, scale": lambda p: dist.MultivariateNormal(jnp.zeros(2), p * MATRIX),
    "MultivariateStudentT": lambda p: dist.MultivariateStudentT(8.0, p * jnp.ones(2), FACTOR),
    "MixtureGeneral": lambda p: dist.MixtureGeneral(
        dist.Categorical(probs=WEIGHTS), [dist.Normal(p, 1.0), dist.Normal(-p, 2.0)]
    ),
    "InverseGamma": lambda p: dist.InverseGamma(p + 8, 2.0),
    "Chi2": lambda p: dist.Chi2(p + 2),
    "DiscreteUniform": lambda p: dist.DiscreteUniform(0, 5),
    "HalfNormal": lambda p: dist.HalfNormal(p),
    "Exponential": lambda p: dist.Exponential(p),
    "Laplace": lambda p: dist.Laplace(p, 1.0),
    "Logistic": lambda p: dist.Logistic(p, 1.0),
    "Gumbel": lambda p: dist.Gumbel(p, 1.0),
    "Weibull": lambda p: dist.Weibull(p, 2.0),
    "Pareto": lambda p: dist.Pareto(1.0, p + 8),
    "NegativeBinomial": lambda p: dist.NegativeBinomial2(p, 3.0),
    "GammaPoisson": lambda p: dist.GammaPoisson(p, 3.0),
    "BetaBinomial": lambda p: dist.BetaBinomial(p, 3.0, 10),
    "Binomial": lambda p: dist.Binomial(10, p / 3),
    "Multinomial": lambda p: dist.Multinomial(10, jnp.stack([p, 1.0, 2.0]) / (p + 3)),
    "Geometric": lambda p: dist.Geometric(p / 4 + 0.2),
    "ZeroInflatedPoisson": lambda p: dist.ZeroInflatedPoisson(0.3, p),
    "LowRank": lambda p: dist.LowRankMultivariateNormal(
        p * jnp.ones(2), jnp.ones((2, 1)), jnp.ones(2)
    ),
    "VonMises": lambda p: dist.VonMises(p / 4, 4.0),
    "LKJCholesky": lambda p: dist.LKJCholesky(3, p),
    "Kumaraswamy": lambda p: dist.Kumaraswamy(p, 2.0),
    "LogUniform": lambda p: dist.LogUniform(p, p + 2),
    "GaussianRandomWalk": lambda p: dist.GaussianRandomWalk(p, 4),
    "OrderedLogistic": lambda p: dist.OrderedLogistic(p, jnp.array([0.0, 1.0])),
    "StudentT, plate": lambda p: dist.StudentT(8.0, p, 1.0).expand((3,)),
    "LogNormal, event": lambda p: dist.LogNormal(p / 4 * jnp.ones(2), 0.5).to_event(1),
    "Wishart": lambda p: dist.Wishart(5.0, jnp.eye(2) * p),
}


def check_law(law, key):
    """Compare moments with NumPyro's own draws, and lanes with their neighbours."""
    params = jnp.where(jnp.arange(N) % 2 == 0, 1.0, 2.0)

    @jax.jit
    def draw(key):
        key_lanes, *keys = jax.random.split(key, 3)
        values = jax.vmap(lambda p, lane: lanes.sample(law(p), key_lanes, lane))(
            params, jnp.arange(N)
        )
        theirs = [law(p).sample(k, (N // 2,)) for p, k in zip((1.0, 2.0), keys, strict=True)]
        return values, theirs

    values, references = draw(key)
    for slot, expected in enumerate(references):
        lane_values = values[slot::2]
        assert (lane_values.shape, lane_values.dtype) == (expected.shape, expected.dtype)
        mine, theirs = (np.asarray(x, float).reshape(N // 2, -1) for x in (lane_values, expected))
        pairs = [(mine, theirs), (mine**2, theirs**2), (mine[:, :1] * mine, theirs[:, :1] * theirs)]
        for a, b in pairs:
            error = np.sqrt((a.var(0) + b.var(0)) / (N // 2))
            close = np.allclose(a, b, rtol=1e-5)  # components that are constant
            assert close or assert_estimate(a.mean(0), b.mean(0), error + 1e-6) is not None
        centred = mine - mine.mean(0)
        noise = centred / np.maximum(centred.std(0), 1e-6)
        for shift in (1, 2, 3):
            assert_mean(noise[shift:] * noise[:-shift] + 1e-9 * noise[shift:], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMON)
def test_law_of_lane_keyed_draws(name, key):
    check_law(COMMON[name], key)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_law_of_more_distributions(name, key):
    check_law(MORE[name], key)


@pytest.mark.parametrize("shape", [(40_000,), (20_001, 2), (4_000, 10), (1, 3, 5)])
def test_normals_are_normal(shape, key):
    noise = np.asarray(lanes.normals(key, shape), np.float64)
    assert noise.shape == shape
    assert np.all(np.isfinite(noise))
    flat = noise.reshape(-1)
    if flat.size > 100:
        for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
            assert_mean(flat**power, expected)
        for shift in (1, 2, flat.size // 2):
            assert_mean(flat[shift:] * flat[:-shift], 0.0)
        quantiles = np.sort(flat)[[flat.size // 20, flat.size // 2, -flat.size // 20]]
        np.testing.assert_allclose(quantiles, [-1.645, 0.0, 1.645], atol=0.05)


def test_zero_probability_is_never_drawn(key):
    probs = jnp.array([0.0, 0.1, 0.0, 0.2, 0.0, 0.7, 0.0], jnp.float32)
    law = dist.Categorical(probs=probs)
    draws = jax.vmap(lambda lane: lanes.sample(law, key, lane))(jnp.arange(200_000))
    assert set(np.unique(draws)) == {1, 3, 5}


def test_lanes_of_a_mapped_run_differ_between_keys(key):
    def run(key):
        return jax.vmap(lambda lane: lanes.sample(dist.Normal(0.0, 1.0), key, lane))(jnp.arange(50))

    keys = jax.random.split(key, 3)
    together = jax.vmap(run)(keys)
    alone = jnp.stack([run(k) for k in keys])
    assert jnp.allclose(together, alone, atol=1e-6)
    assert len(np.unique(together)) == 150


def test_keys_that_already_differ_by_lane(key):
    keys = jax.random.split(key, 1000)
    draws = jax.vmap(lambda k, lane: lanes.sample(dist.Normal(0.0, 1.0), k, lane))
    assert len(np.unique(draws(keys, jnp.arange(1000)))) == 1000


class Waiting(dist.Distribution):
    """A distribution of a user's own, with parameters that JAX does not see."""

    @property
    def support(self):
        return dist.constraints.positive

    def __init__(self, rate):
        self.rate = rate
        super().__init__((), ())

    def sample(self, key, sample_shape=()):
        return jax.random.exponential(key, sample_shape) / self.rate


def test_distributions_of_users(key):
    rates = jnp.linspace(1.0, 2.0, N)
    draw = jax.vmap(lambda rate, lane: lanes.sample(Waiting(rate), key, lane))
    assert_mean(np.asarray(draw(rates, jnp.arange(N)) * rates), 1.0)


def test_keys_are_consumed(key_reuse, key):
    def twice(key):
        draw = jax.vmap(lambda lane: lanes.sample(dist.Normal(0.0, 1.0), key, lane))
        return draw(jnp.arange(4)) + draw(jnp.arange(4))

    with pytest.raises(Exception, match="(?i)key"):
        jax.jit(twice)(key)


def test_gradients_pass_through_draws(key):
    def mean(scale):
        law = dist.MultivariateNormal(jnp.zeros(2), scale * jnp.eye(2))
        draws = jax.vmap(lambda lane: lanes.sample(law, key, lane))(jnp.arange(100))
        return jnp.mean(draws**2)

    assert jax.jit(jax.grad(mean))(jnp.array(2.0)) > 0


def test_log_prob_of_multivariate_normals():
    law = dist.MultivariateNormal(jnp.ones(2), MATRIX)
    value = jnp.array([0.3, -1.0])
    for is_observed in (True, False):
        masked = law.mask(jnp.asarray(is_observed))
        np.testing.assert_allclose(
            lanes.log_prob(masked, value), masked.log_prob(value), rtol=1e-5, atol=1e-6
        )
    assert lanes.log_prob(law.mask(False), value) == 0


class FirstOutcomes:
    """An oracle that chooses outcome `lane % K` and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def choose(self, probabilities, key_data):
        probabilities = np.asarray(probabilities)
        self.asked.append(probabilities)
        rows = np.arange(np.prod(probabilities.shape[:-1], dtype=int)) % probabilities.shape[-1]
        return rows.reshape(probabilities.shape[:-1]).astype(np.int32)


def test_enumeration_asks_once_for_all_lanes(key):
    params = jnp.array([1.0, 2.0, 3.0])
    with random.enumerating(FirstOutcomes()) as oracle:
        draw = jax.vmap(lambda p, lane: lanes.sample(dist.Bernoulli(probs=p / 4), key, lane))
        values = draw(params, jnp.arange(3))
        jax.effects_barrier()
    assert values.tolist() == [0, 1, 0]
    (asked,) = oracle.asked
    np.testing.assert_allclose(asked, [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


def test_enumeration_refuses_infinitely_many_outcomes(key):
    with random.enumerating(FirstOutcomes()), pytest.raises(ValueError, match="Gamma"):
        jax.vmap(lambda lane: lanes.sample(dist.Gamma(1.0, 1.0), key, lane))(jnp.arange(3))
