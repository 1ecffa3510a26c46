"""Output folders: runs stay apart, and a stopped one leaves nothing half-written behind."""

import json
from pathlib import Path

import numpy as np
import pytest

from jurax.models.language.run_folder import RunFolder

RUN = {"command": "solve", "seed": 0, "versions": {"jax": "1"}}


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b", RUN)
    assert not folder.complete and json.loads((folder.path / "run.json").read_text())["seed"] == 0


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    for existing in ("refuse", "resume", "replace"):
        with pytest.raises(ValueError, match="is not empty and holds no run of jurax"):
            RunFolder(tmp_path, RUN, existing=existing)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_run_is_refused_and_named(tmp_path: Path) -> None:
    RunFolder(tmp_path, RUN)
    for existing in ("refuse", "resume", "replace"):
        with pytest.raises(ValueError, match="holds another run .seed is 0 there and 1 here."):
            RunFolder(tmp_path, {**RUN, "seed": 1}, existing=existing)


def test_the_same_run_needs_to_be_resumed(tmp_path: Path) -> None:
    RunFolder(tmp_path, RUN)
    with pytest.raises(ValueError, match="was interrupted; pass --resume"):
        RunFolder(tmp_path, RUN)
    RunFolder(tmp_path, RUN, existing="resume").finish({"methods": {}})
    with pytest.raises(ValueError, match="is complete; pass --resume"):
        RunFolder(tmp_path, RUN)
    assert RunFolder(tmp_path, RUN, existing="resume").complete


def test_versions_do_not_make_another_run(tmp_path: Path) -> None:
    RunFolder(tmp_path, RUN)
    RunFolder(tmp_path, {**RUN, "versions": {"jax": "2"}}, existing="resume")


def test_replacing_starts_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.write_part("a", {"x": np.ones(2)}, {})
    folder.finish({"methods": {}})
    again = RunFolder(tmp_path, RUN, existing="replace")
    assert not again.complete and not again.has_part("a")


def test_parts_come_back_as_they_were(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    arrays = {"x": np.array([1.5, np.nan, -np.inf], np.float32), "answer": np.array([["8", ""]])}
    header = {"lines": [{"id": "é", "answer": None}], "seconds": 0.1}
    folder.write_part("a-00000", arrays, header)
    found, read = folder.read_part("a-00000")
    assert read == header and set(found) == {"x", "answer"}
    assert (
        np.array_equal(found["x"], arrays["x"], equal_nan=True) and found["x"].dtype == np.float32
    )
    assert found["answer"].tolist() == [["8", ""]]
    assert folder.has_part("a-00000") and not folder.has_part("a-00001")


def test_a_complete_folder_has_no_parts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.write_part("a", {"x": np.ones(1)}, {})
    folder.finish({"accuracy": float("nan")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"accuracy": None}


def test_a_start_that_was_killed_at_once_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "run.json.partial").write_text("{")
    RunFolder(tmp_path, RUN)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to the output folder .*file"):
        RunFolder(tmp_path / "file" / "out", RUN)
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        RunFolder(tmp_path / "file", RUN)

    # A read-only folder; tests may run as root, whom permissions do not stop.
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(ValueError, match="cannot write to the output folder .*Permission denied"):
        RunFolder(tmp_path / "out", RUN)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.write_part("one", {"x": np.zeros(3)}, {})
    part = tmp_path / "parts" / "one.npz"
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(ValueError, match="one.npz is not a finished batch; delete it to run it"):
        folder.read_part("one")
