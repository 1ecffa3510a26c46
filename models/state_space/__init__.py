"""Classic state-space models with exact answers; see README.md."""

from jurax.models.state_space.hmm import HiddenMarkovModel as HiddenMarkovModel
from jurax.models.state_space.linear_gaussian import LinearGaussian as LinearGaussian
from jurax.models.state_space.stochastic_volatility import (
    StochasticVolatility as StochasticVolatility,
)
