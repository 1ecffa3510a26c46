"""particles: its state-space classes and `SMC`, in NumPy (float64) with numba for resampling.

Nothing is collected but what it always computes (ESS and log-evidence by step); no history.
"""

import numpy as np
import particles
from particles import distributions as laws
from particles import state_space_models as spaces

from contenders.cases import AR, MU, RHO, SIGMA, Case, transition_matrix


class Scalar(spaces.StateSpaceModel):
    """lg1."""

    def PX0(self):  # noqa: N802 - names of the library
        """Law of x_0."""
        return laws.Normal(scale=1 / np.sqrt(1 - AR**2))

    def PX(self, t, xp):  # noqa: N802
        """Law of x_t given x_{t-1}."""
        return laws.Normal(loc=AR * xp)

    def PY(self, t, xp, x):  # noqa: N802
        """Law of y_t given x_t."""
        return laws.Normal(loc=x)


class Vector(spaces.StateSpaceModel):
    """lg10."""

    def PX0(self):  # noqa: N802
        """Law of x_0."""
        return laws.MvNormal(cov=np.eye(10))

    def PX(self, t, xp):  # noqa: N802
        """Law of x_t given x_{t-1}."""
        return laws.MvNormal(loc=xp @ transition_matrix(10).T, cov=np.eye(10))

    def PY(self, t, xp, x):  # noqa: N802
        """Law of y_t given x_t."""
        return laws.MvNormal(loc=x, cov=np.eye(10))


def model(case: Case):
    """The library's model of a case; stochastic volatility is its own class."""
    if case.name == "sv":
        return spaces.StochVol(mu=MU, rho=RHO, sigma=SIGMA)
    return Scalar() if case.name == "lg1" else Vector()


def prepare(case: Case, num_particles: int, threshold: float):
    """See the docstring of the package."""
    process = spaces.Bootstrap(ssm=model(case), data=case.observations.astype(np.float64))

    def run(seed: int) -> float:
        np.random.seed(seed)  # the library draws from NumPy's global generator
        smc = particles.SMC(fk=process, N=num_particles, resampling="systematic", ESSrmin=threshold)
        smc.run()
        return float(smc.logLt)

    return run
