"""Markov kernels on the unconstrained parameters of a program, and the chains that run them."""

from jurax.inference.mcmc.kernel import AbstractMCMCKernel as AbstractMCMCKernel
from jurax.inference.mcmc.kernel import ChainState as ChainState
from jurax.inference.mcmc.rwmh import RWMH as RWMH
