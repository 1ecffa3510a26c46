"""The language: processes, populations, posteriors, and the laws they obey."""

from jurax.ppl import laws as laws
from jurax.ppl import random as random
from jurax.ppl import weights as weights
from jurax.ppl.combinators import Automaton as Automaton
from jurax.ppl.combinators import Proposal as Proposal
from jurax.ppl.combinators import constrain as constrain
from jurax.ppl.combinators import propose as propose
from jurax.ppl.combinators import temper as temper
from jurax.ppl.combinators import tilt as tilt
from jurax.ppl.combinators import twist as twist
from jurax.ppl.cost import Cost as Cost
from jurax.ppl.family import family as family
from jurax.ppl.nest import nest as nest
from jurax.ppl.population import Population as Population
from jurax.ppl.posterior import Distribution as Distribution
from jurax.ppl.posterior import History as History
from jurax.ppl.posterior import Posterior as Posterior
from jurax.ppl.predictive import forecast as forecast
from jurax.ppl.predictive import posterior_predictive as posterior_predictive
from jurax.ppl.predictive import prior_predictive as prior_predictive
from jurax.ppl.process import AbstractProcess as AbstractProcess
from jurax.ppl.program import Program as Program
from jurax.ppl.program import bind as bind
from jurax.ppl.sequential import sequential as sequential
from jurax.ppl.state_space import StateSpaceModel as StateSpaceModel
from jurax.ppl.unconstrained import Unconstrained as Unconstrained
