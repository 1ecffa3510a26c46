"""Calibration of a likelihood reward on validation problems, and the strengths it is used with.

    python -m jurax.models.language.calibrate POLICY REWARD OUTPUT

draws N samples for each of B validation problems from the policy, reads them with the reward, and
stores in the header of OUTPUT

- slope and intercept of the logistic regression of liveness (can the prefix still end in the right
  answer?) on the score of the prefix, and
- for each reward target the exponent lambda that maximises the log score of the right answer,

      sum_b log((N P_lambda(right answer of b) + 1 / K) / (N + 1)),    P_lambda = weighted vote:

  one more vote is spread over the K answers that occur at all, since a right answer that no sample
  has must not score minus infinity.

Shape letters: B problems, N samples, T steps, K answers.
"""

import json
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Array, Bool, Float

from jurax.models.language import labelled_samples, regchain
from jurax.models.language.decoder import Decoder
from jurax.models.language.default import TOKENIZER, load_policy
from jurax.models.language.labelled_samples import Samples
from jurax.models.language.likelihood_reward import LikelihoodReward
from jurax.models.language.reward_targets import FORMULAS, log_potentials
from jurax.models.language.saving import load_model, save_model

GRID = np.concatenate([np.arange(0, 2, 0.01), np.arange(2, 10, 0.05)])
FLOOR = -3.0


def draw(policy: Path, reward: Path, num_problems: int, num_samples: int, seed: int) -> Samples:
    """Labelled samples of validation problems, with the bare score of the reward as log-odds."""
    transformer, _ = load_model(reward)
    raw = LikelihoodReward(
        Decoder.of(transformer), TOKENIZER, slope=1.0, intercept=0.0, floor=FLOOR
    )
    problems = regchain.problems("validation", num_problems, seed)
    key = jax.random.key(seed)
    return labelled_samples.draw(key, load_policy(policy), raw, problems, num_samples)


def fit_logistic(x: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"], num_steps: int = 30):
    """Slope and intercept of logit P(y) = intercept + slope * x, by Newton's method.

    Example:
        >>> import numpy as np
        >>> x = np.repeat([0.0, 1.0], 100); y = np.r_[np.arange(100) < 50, np.arange(100) < 75]
        >>> slope, intercept = fit_logistic(x, y)
        >>> bool(abs(slope - np.log(3)) < 1e-4 and abs(intercept) < 1e-4)
        True
    """
    mean, scale = float(np.mean(x)), float(np.std(x))
    design = np.stack([np.ones_like(x), (x - mean) / scale], axis=1).astype(float)
    beta = np.zeros(2)
    for _ in range(num_steps):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        beta = beta + np.linalg.solve(hessian, design.T @ (y - p))
    return float(beta[1] / scale), float(beta[0] - beta[1] * mean / scale)


def fit_strength(
    potential: Float[Array, "B N"],
    right: Bool[np.ndarray, "B N"],
    num_answers: int,
    grid: np.ndarray = GRID,
) -> float:
    """The exponent on `grid` with the best log score of the right answer.

    Args:
        potential: log of the product of potentials of each sample, for exponent 1.
        right: which samples have the right answer.
        num_answers: K, distinct answers of all samples.
        grid: exponents to compare.
    """
    num_samples = right.shape[1]

    def log_score(strength: float) -> float:
        vote = jax.nn.softmax(strength * jnp.asarray(potential), axis=-1)
        truth = jnp.sum(vote * right, axis=-1)
        return float(jnp.mean(jnp.log((num_samples * truth + 1 / num_answers) / (num_samples + 1))))

    return round(float(grid[int(np.argmax([log_score(x) for x in grid]))]), 6)


def calibrate(samples: Samples) -> dict:
    """Everything that the header of a reward stores."""
    exists = samples.exists
    slope, intercept = fit_logistic(samples.scores[exists], samples.live[exists])
    log_odds = intercept + slope * jnp.asarray(samples.scores)
    num_answers = len(np.unique(samples.answers.astype(str)))  # no answer is one of them
    strengths = {
        name: fit_strength(log_potentials(name, log_odds), samples.right, num_answers)
        for name in FORMULAS
    }
    return {"slope": slope, "intercept": intercept, "floor": FLOOR, "strengths": strengths}


def main(
    policy: Path,
    reward: Path,
    output: Path,
    num_problems: Annotated[int, typer.Option(help="validation problems")] = 300,
    num_samples: Annotated[int, typer.Option(help="samples of each")] = 64,
    seed: Annotated[int, typer.Option(help="of the problems and the samples")] = 0,
) -> None:
    """Fit the calibration and write the reward with it to OUTPUT."""
    calibration = calibrate(draw(policy, reward, num_problems, num_samples, seed))
    transformer, metadata = load_model(reward)
    used = {"num_problems": num_problems, "num_samples": num_samples, "seed": seed}
    calibration["validation"] = used
    save_model(output, transformer, {**metadata, "calibration": json.dumps(calibration)})
    print(json.dumps(calibration, indent=2))


if __name__ == "__main__":
    typer.run(main)
