"""Finite measures summed over replays, and the report of how two of them differ."""

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np
from jaxtyping import Array

from jurax.ppl.carrying import Measure
from jurax.ppl.walk import Walk

PRESERVING = "preserving: E[mu'](x) = mu(x) for every state x"
ADVANCING = "advancing: E[mu'](x) = (mu M G)(x) for every state x"
UNBIASED = "unbiased: E[Zhat sum_i W_i 1{x_i = s}] = gamma(s) for every path s"
EVIDENCE = "unbiased evidence: E[Zhat] = Z"
INVARIANT = "invariant: sum_s pi(s) P(s, s') = pi(s') for every path s'"
GENEALOGY = "genealogy: records traced along the ancestors are the path of the particle"
KEYS = "keys: every key is used once"


@dataclasses.dataclass(frozen=True)
class LawReport:
    """The outcome of a check; true in a condition if the law holds.

    Attributes:
        passed: whether the law holds to `tolerance`.
        max_error: largest difference of the two measures on one atom, relative to the total mass.
        law: the law that was checked; if one failed, that one.
        function: the atom with the largest difference: the test function is its indicator.
        tolerance: largest error that counts as rounding.
        num_replays: sequences of outcomes that were replayed.
        branches: for every boolean entry of the info, such as `resampled`, how often it was True
            and False over the steps of all replays. A branch that was never taken was not tested.

    Example:
        >>> report = LawReport(False, 0.5, UNBIASED, "(0, 1)", 1e-10, 16, {"resampled": (8, 8)})
        >>> print(report)
        BROKEN by 5.0e-01 (tolerance 1e-10): unbiased: E[Zhat sum_i W_i 1{x_i = s}] = gamma(s) for
        every path s; at (0, 1); 16 replays; resampled 8 times, not 8 times
    """

    passed: bool
    max_error: float
    law: str
    function: str
    tolerance: float
    num_replays: int
    branches: dict[str, tuple[int, int]]

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        verdict = "holds to" if self.passed else "BROKEN by"
        taken = [f"{name} {yes} times, not {no} times" for name, (yes, no) in self.branches.items()]
        parts = [
            f"{verdict} {self.max_error:.1e} (tolerance {self.tolerance:g}): {self.law}",
            f"at {self.function}",
            f"{self.num_replays} replays",
            *taken,
        ]
        return "; ".join(parts)


class Tally:
    """Expectations, summed over replays."""

    def __init__(self, tolerance: float = 1e-10) -> None:
        self.tolerance = tolerance
        self.measure: Measure = defaultdict(float)
        self.strays: Measure = defaultdict(float)
        self.evidence: float | None = None
        self.branches: dict[str, tuple[int, int]] = {}
        self.last_time = 0

    def add(self, probability: float, atoms: list, masses: np.ndarray) -> None:
        """Add the masses of one replay."""
        for atom, mass in zip(atoms, masses.tolist(), strict=True):
            if mass != 0:
                self.measure[atom] += probability * mass

    def add_evidence(self, probability: float, evidence: float) -> None:
        """Add the evidence estimate of one replay."""
        self.evidence = (self.evidence or 0.0) + probability * evidence

    def add_genealogy(
        self, probability: float, carried: list, traced: list, masses: np.ndarray
    ) -> None:
        """Add the mass of particles whose traced records are not the path that they carry."""
        for path, other, mass in zip(carried, traced, masses.tolist(), strict=True):
            if path != other:
                self.strays[path] += probability * mass

    def count(self, flags: dict[str, np.ndarray]) -> None:
        """Count the branches of one replay."""
        for name, flag in flags.items():
            yes, no = self.branches.get(name, (0, 0))
            hits = int(np.sum(flag))
            self.branches[name] = (yes + hits, no + flag.size - hits)

    def report(self, walk: Walk, law: str, expected: Measure) -> LawReport:
        """Compare with the expected measure; what else is wrong is reported by its own name."""
        total = sum(expected.values())
        scale = total or 1.0
        error, atom = _largest_difference(self.measure, expected, scale)
        if error <= self.tolerance and self.evidence is not None:
            law, error, atom = _worse(
                (law, error, atom), (EVIDENCE, abs(self.evidence - total) / scale, "every path")
            )
        if error <= self.tolerance:
            stray = _largest_difference(self.strays, {}, scale)
            law, error, atom = _worse((law, error, atom), (GENEALOGY, *stray))
        if walk.key_fault is not None:
            law, error, atom = KEYS, float("inf"), walk.key_fault
        return LawReport(
            passed=bool(error <= self.tolerance),
            max_error=float(error),
            law=law,
            function=atom,
            tolerance=self.tolerance,
            num_replays=walk.num_replays,
            branches=self.branches,
        )


def flags_of(info: dict[str, Any]) -> dict[str, Array]:
    """The boolean entries of an info."""
    return {name: x for name, x in info.items() if getattr(x, "dtype", None) == np.dtype(bool)}


def _worse(first: tuple[str, float, str], second: tuple[str, float, str]) -> tuple[str, float, str]:
    """The second if its error is larger by more than rounding."""
    return second if not second[1] <= first[1] + 1e-12 else first


def _largest_difference(first: Measure, second: Measure, scale: float) -> tuple[float, str]:
    worst, where = 0.0, "every atom"
    for atom in {**first, **second}:
        error = abs(first.get(atom, 0.0) - second.get(atom, 0.0)) / scale
        if error != error:  # NaN is as wrong as can be
            return float("inf"), str(atom)
        if error > worst:
            worst, where = error, str(atom)
    return worst, where
