"""The models and their data: y_t given x_t, and x_t given x_{t-1} from a stationary start.

    lg1    x_t = .9 x_{t-1} + N(0, 1),                    y_t = x_t + N(0, 1)
    lg10   x_t = A x_{t-1} + N(0, I), A banded, D = 10,   y_t = x_t + N(0, I)
    sv     x_t = mu + rho (x_{t-1} - mu) + sigma N(0, 1), y_t = exp(x_t / 2) N(0, 1)

The parameters of sv are those of Pitt and Shephard 1999. The data are simulated with NumPy and a
fixed seed. The initial law of lg10 is N(0, I) for everybody, which is not stationary.
"""

import dataclasses

import numpy as np

MU, RHO, SIGMA = -1.02, 0.9702, 0.178
AR = 0.9


# Compared by identity, so that a case can be a static field.
@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model with its data.

    Attributes:
        name: lg1, lg10 or sv.
        observations: float32 array `(T,)` or `(T, D)`.
    """

    name: str
    observations: np.ndarray

    @property
    def num_times(self) -> int:
        """T."""
        return self.observations.shape[0]


def transition_matrix(dimension: int) -> np.ndarray:
    """Banded: .5 on the diagonal, .2 beside it; its spectral radius is below .9."""
    return 0.5 * np.eye(dimension) + 0.2 * (np.eye(dimension, k=1) + np.eye(dimension, k=-1))


def make_case(name: str, num_times: int, seed: int = 1) -> Case:
    """Simulate the data of a case."""
    rng = np.random.default_rng(seed)
    if name == "sv":
        state = MU + SIGMA / np.sqrt(1 - RHO**2) * rng.normal()
    elif name == "lg1":
        state = rng.normal() / np.sqrt(1 - AR**2)
    elif name == "lg10":
        state, matrix = rng.normal(size=10), transition_matrix(10)
    else:
        raise ValueError(f"no case {name!r}: choose lg1, lg10 or sv")
    rows = []
    for t in range(num_times):
        if name == "sv":
            state = state if t == 0 else MU + RHO * (state - MU) + SIGMA * rng.normal()
            rows.append(np.exp(state / 2) * rng.normal())
        elif name == "lg1":
            state = state if t == 0 else AR * state + rng.normal()
            rows.append(state + rng.normal())
        else:
            state = state if t == 0 else matrix @ state + rng.normal(size=10)
            rows.append(state + rng.normal(size=10))
    return Case(name, np.asarray(rows, np.float32))


def kalman_log_evidence(case: Case) -> float | None:
    """Exact log p(y_{1:T}) of a linear-Gaussian case; None for sv."""
    if case.name == "sv":
        return None
    observations = np.asarray(case.observations, np.float64).reshape(case.num_times, -1)
    dimension = observations.shape[1]
    identity = np.eye(dimension)
    matrix = AR * identity if case.name == "lg1" else transition_matrix(dimension)
    mean = np.zeros(dimension)
    covariance = identity / (1 - AR**2) if case.name == "lg1" else identity
    total = 0.0
    for t, observation in enumerate(observations):
        if t > 0:
            mean, covariance = matrix @ mean, matrix @ covariance @ matrix.T + identity
        innovation, spread = observation - mean, covariance + identity
        solved = np.linalg.solve(spread, innovation)
        total -= 0.5 * (
            innovation @ solved + np.linalg.slogdet(spread)[1] + dimension * np.log(2 * np.pi)
        )
        gain = np.linalg.solve(spread, covariance).T
        mean, covariance = mean + gain @ innovation, covariance - gain @ covariance
    return float(total)
