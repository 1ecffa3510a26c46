"""Kernels, their compositions, and the entry point `infer`."""

from jurax.inference.compose import ess_below as ess_below
from jurax.inference.compose import mixture as mixture
from jurax.inference.compose import repeat as repeat
from jurax.inference.compose import when as when
from jurax.inference.extend import Extend as Extend
from jurax.inference.importance import ImportanceSampling as ImportanceSampling
from jurax.inference.infer import infer as infer
from jurax.inference.kernel import AbstractKernel as AbstractKernel
from jurax.inference.mcmc import HMC as HMC
from jurax.inference.mcmc import MALA as MALA
from jurax.inference.mcmc import MCMC as MCMC
from jurax.inference.mcmc import NUTS as NUTS
from jurax.inference.mcmc import RWMH as RWMH
from jurax.inference.mcmc import SVI as SVI
from jurax.inference.mcmc import AbstractMCMCKernel as AbstractMCMCKernel
from jurax.inference.particle_filter import ParticleFilter as ParticleFilter
from jurax.inference.resample import Resample as Resample
from jurax.inference.resampling import Multinomial as Multinomial
from jurax.inference.resampling import Residual as Residual
from jurax.inference.resampling import Stratified as Stratified
from jurax.inference.resampling import Systematic as Systematic
from jurax.inference.search import BeamSearch as BeamSearch
from jurax.inference.search import BestOfN as BestOfN
from jurax.inference.search import SelfConsistency as SelfConsistency
