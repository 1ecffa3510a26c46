"""Markov kernels on the unconstrained parameters of a program, and the chains that run them."""

from jurax.inference.mcmc.chains import MCMC as MCMC
from jurax.inference.mcmc.cycle import MixedChains as MixedChains
from jurax.inference.mcmc.hmc import HMC as HMC
from jurax.inference.mcmc.kernel import AbstractMCMCKernel as AbstractMCMCKernel
from jurax.inference.mcmc.kernel import ChainState as ChainState
from jurax.inference.mcmc.mala import MALA as MALA
from jurax.inference.mcmc.nuts import NUTS as NUTS
from jurax.inference.mcmc.rwmh import RWMH as RWMH
from jurax.inference.mcmc.svi import SVI as SVI
