"""The output folder of a run: what makes it resumable, and what keeps runs apart.

    run.json        what determines the result; written first
    parts/          finished batches, one file each, written beside their name and renamed
    ...             the results, written at the end; `summary.json` is the last of them

A part is on disk before the next batch starts. A killed run loses the batch it was in; when it is
resumed the others are read back and the rest is computed, in the same batches, to the same
results. A folder is complete when it has `summary.json`; then parts are gone.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from jurax.models.language.results import Arrays, finite, to_json
from jurax.ppl import npz

FORMAT = "jurax-run-1"
NOT_COMPARED = ("versions",)

Existing = Literal["refuse", "resume", "replace"]


class RunFolder:
    """An output folder that belongs to one run.

    Args:
        path: the folder; made if it is missing.
        run: what determines the results, as plain JSON values.
        existing: what to do where the folder holds this very run: refuse, resume it where it
            stopped, or replace it by a new one.

    Raises:
        ValueError: the folder cannot be written, holds other files or another run, or holds this
            run and `existing` is "refuse".
    """

    def __init__(self, path: str | Path, run: dict[str, Any], *, existing: Existing = "refuse"):
        self.path = Path(path)
        self.run = finite({"format": FORMAT, **run})
        try:
            self._claim(existing)
        except OSError as error:
            raise ValueError(f"cannot write to the output folder {self.path}: {error}") from error

    @property
    def complete(self) -> bool:
        """Whether the run ended."""
        return (self.path / "summary.json").exists()

    def has_part(self, name: str) -> bool:
        """Whether a batch is on disk."""
        return self._part(name).exists()

    def write_part(self, name: str, arrays: Arrays, header: dict[str, Any]) -> None:
        """Keep a batch: arrays, and a header of plain JSON values."""
        npz.write(self._part(name), arrays, json.loads(to_json(header)), compress=True)

    def read_part(self, name: str) -> tuple[Arrays, dict[str, Any]]:
        """A batch that `write_part` kept; ValueError if it is damaged."""
        return npz.read(self._part(name), "a finished batch; delete it to run it again")

    def append(self, name: str, lines: list[dict]) -> None:
        """Add lines to a file of JSON lines, at once."""
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write("".join(to_json(line) + "\n" for line in lines))

    def write_text(self, name: str, text: str) -> None:
        """Write a file; it appears at once, complete."""
        temporary = self.path / (name + ".partial")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / name)

    def write_lines(self, name: str, lines: list[dict]) -> None:
        """Write a whole file of JSON lines."""
        self.write_text(name, "".join(to_json(line) + "\n" for line in lines))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, which makes the run complete, and drop the parts."""
        self.write_text("summary.json", to_json(summary, indent=2) + "\n")
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def _part(self, name: str) -> Path:
        return self.path / "parts" / f"{name}.npz"

    def _claim(self, existing: Existing) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # A start that was killed in its first write leaves a partial file and nothing else.
        if any(entry.suffix != ".partial" for entry in self.path.iterdir()):
            self._check_same(existing)
        if existing == "replace":
            (self.path / "summary.json").unlink(missing_ok=True)
            shutil.rmtree(self.path / "parts", ignore_errors=True)
        if self.complete:
            shutil.rmtree(self.path / "parts", ignore_errors=True)
        else:
            self.write_text("run.json", to_json(self.run, indent=2) + "\n")
            (self.path / "parts").mkdir(exist_ok=True)

    def _check_same(self, existing: Existing) -> None:
        found = read_run(self.path)
        if found is None:
            raise ValueError(
                f"the output folder {self.path} is not empty and holds no run of jurax; choose "
                "another folder"
            )
        differences = compare(found, self.run)
        if differences:
            raise ValueError(
                f"the output folder {self.path} holds another run ({'; '.join(differences)}); "
                "choose another folder"
            )
        if existing == "refuse":
            state = "is complete" if self.complete else "was interrupted"
            raise ValueError(
                f"the output folder {self.path} holds this run already, which {state}; pass "
                "--resume to go on with it, or choose another folder"
            )


def read_run(path: Path) -> dict[str, Any] | None:
    """The run that a folder holds, or None."""
    try:
        found = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between two runs, in words.

    Example:
        >>> compare({"seed": 0, "versions": "a"}, {"seed": 1, "versions": "b"})
        ['seed is 0 there and 1 here']
    """
    names = [name for name in {**found, **wanted} if name not in NOT_COMPARED]
    return [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
