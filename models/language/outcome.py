"""What a method did on a set of problems: the input of every figure and table."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jurax.models.language.methods import Setting
from jurax.models.language.results import Arrays


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Results of one method on all problems, in their order.

    Attributes:
        setting: the method.
        truths: the true answers, None where they are not known.
        lines: one entry for each problem; see `jurax.models.language.results`.
        arrays: its particles.
        target: what the particles represent.
        seconds: wall-clock for all problems, without compilation.
        compile_seconds: compilation.
    """

    setting: Setting
    truths: list[str | None]
    lines: list[dict[str, Any]]
    arrays: Arrays
    target: str
    seconds: float
    compile_seconds: float

    @property
    def known(self) -> Bool[np.ndarray, " B"]:
        """Problems whose true answer is known."""
        return np.array([truth is not None for truth in self.truths], bool)

    @property
    def correct(self) -> Bool[np.ndarray, " K"]:
        """Whether the answer is right, for those with a known answer."""
        return np.array([line["correct"] for line in self.lines if "correct" in line], bool)

    @property
    def probabilities(self) -> Float[np.ndarray, " K"]:
        """Stated probability of the chosen answer, for those with a known answer."""
        return np.array([line["probability"] for line in self.lines if "correct" in line], float)

    def spent(self, name: str) -> float:
        """An entry of the ledger, mean over problems."""
        return float(np.mean([line["cost"][name] for line in self.lines]))
