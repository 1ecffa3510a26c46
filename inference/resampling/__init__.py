"""Resampling schemes: `scheme(key, log_weights, num_particles) -> ancestors`, E[counts] = N W."""

from jurax.inference.resampling.multinomial import Multinomial as Multinomial
from jurax.inference.resampling.residual import Residual as Residual
from jurax.inference.resampling.residual_systematic import (
    ResidualSystematic as ResidualSystematic,
)
from jurax.inference.resampling.ssp import SSP as SSP
from jurax.inference.resampling.stratified import Stratified as Stratified
from jurax.inference.resampling.systematic import Systematic as Systematic
from jurax.inference.resampling.tempered import Tempered as Tempered
