"""Solving: files, batches, resuming. The noisy executor stands for the language model."""

import json
from pathlib import Path
from typing import Any

import arviz
import jax
import numpy as np
import pytest
import xarray

from jurax.models.language import methods, questions, solve, summary
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.methods import METHODS, Setting, problem_keys
from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.questions import Question
from jurax.models.language.results import to_json

MODEL, REWARD = None, None
FILES = [
    "accuracy.png",
    "answers.jsonl",
    "calibration.png",
    "posterior.nc",
    "run.json",
    "summary.json",
]
FIGURES = ("accuracy", "standard_error", "decoded_tokens", "reward_tokens", "seconds", "ece")
MORE_FIGURES = ("ece_floor", "brier", "log_score")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"model": NoisyExecutor(), "reward": DialledReward()}


@pytest.fixture(scope="module")
def ten() -> list[Question]:
    return questions.generate_questions(10, seed=0)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "MAX_PROBLEMS", 4)


def lines_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


class Killed(BaseException):
    pass


def kill_after(num_batches: int):
    left = [num_batches]

    def advance(count: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return advance


@pytest.mark.parametrize(
    "method",
    [m if m == "particle_filter" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)
def test_every_method_writes_the_files(tmp_path: Path, ten, models, method: str) -> None:
    content = solve.solve(ten, Setting(method, 6), tmp_path, **models)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    figures = json.loads((tmp_path / "summary.json").read_text())["methods"][method]
    assert content["methods"][method] == figures
    assert {*FIGURES, *MORE_FIGURES} <= set(figures)
    assert figures["num_problems"] == 10 and figures["status"] == {"ok": 10}
    assert (figures["reward_tokens"] > 0) == (method in ("best_of_n", "particle_filter"))
    for line, question in zip(lines_in(tmp_path), ten, strict=True):
        assert line["id"] == question.id and line["status"] == "ok"
        assert line["correct"] == (line["answer"] == question.answer)
        assert sum(line["distribution"].values()) == pytest.approx(1, abs=1e-5)
        assert line["probability"] == max(line["distribution"].values())
        assert line["distribution"]["null" if line["answer"] is None else line["answer"]] > 0
        assert (line["log_evidence"] is None) == (method != "particle_filter")


def test_figures_are_those_of_the_lines(tmp_path: Path, ten, models) -> None:
    figures = solve.solve(ten, Setting("majority", 6), tmp_path, **models)["methods"]["majority"]
    lines = lines_in(tmp_path)
    correct = np.array([line["correct"] for line in lines])
    stated = np.array([line["probability"] for line in lines])
    assert figures["accuracy"] == pytest.approx(correct.mean())
    assert figures["standard_error"] == pytest.approx(correct.std(ddof=1) / np.sqrt(10))
    assert figures["brier"] == pytest.approx(np.mean((stated - correct) ** 2))
    tokens = [line["cost"]["decoded_tokens"] for line in lines]
    assert figures["decoded_tokens"] == pytest.approx(np.mean(tokens))


def test_a_killed_run_resumes_to_the_same_files(tmp_path: Path, ten, models) -> None:
    setting = Setting("particle_filter", 5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    solve.solve(ten, setting, whole, **models)
    with pytest.raises(Killed):
        solve.solve(ten, setting, broken, advance=kill_after(2), **models)
    finished = lines_in(broken)
    assert len(finished) == 8, "the problems of two batches are on disk at once"
    assert not (broken / "summary.json").exists()
    calls = []
    solve.solve(ten, setting, broken, resume=True, advance=calls.append, **models)
    assert calls == [4, 4, 2]
    assert (broken / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()
    assert (broken / "run.json").read_bytes() == (whole / "run.json").read_bytes()
    with xarray.open_dataset(broken / "posterior.nc") as one:
        with xarray.open_dataset(whole / "posterior.nc") as other:
            assert one.identical(other)
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (broken, whole))
    for content in (ours, theirs):
        for name in ("seconds", "compile_seconds"):
            content["methods"]["particle_filter"].pop(name)
    assert ours == theirs
    assert sorted(path.name for path in broken.iterdir()) == FILES


def test_finished_batches_are_not_run_again(tmp_path: Path, ten, models, monkeypatch) -> None:
    setting = Setting("majority", 3)
    with pytest.raises(Killed):
        solve.solve(ten, setting, tmp_path, advance=kill_after(2), **models)
    ran, run_method = [], methods.run_method

    def counted(*arguments):
        ran.append(len(arguments[3]))
        return run_method(*arguments)

    monkeypatch.setattr(solve, "run_method", counted)
    solve.solve(ten, setting, tmp_path, resume=True, **models)
    assert ran == [4], "the last batch only, filled up to the size of the others"
    content = solve.solve(ten, setting, tmp_path, resume=True, **models)
    assert ran == [4] and content["methods"]["majority"]["num_problems"] == 10


def test_a_batch_that_was_cut_off_while_writing_is_run_again(tmp_path, ten, models) -> None:
    setting = Setting("majority", 3)
    with pytest.raises(Killed):
        solve.solve(ten, setting, tmp_path, advance=kill_after(1), **models)
    (tmp_path / "parts" / "majority-3-00001.npz.partial").write_bytes(b"half of it")
    solve.solve(ten, setting, tmp_path, resume=True, **models)
    assert len(lines_in(tmp_path)) == 10


@pytest.mark.parametrize(
    "other", [Setting("majority", 4), Setting("majority", 3, 1), Setting("best_of_n", 3)]
)
def test_the_folder_of_another_run_is_refused(tmp_path, ten, models, other) -> None:
    with pytest.raises(Killed):
        solve.solve(ten, Setting("majority", 3), tmp_path, advance=kill_after(1), **models)
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds another run"):
            solve.solve(ten, other, tmp_path, resume=resume, **models)
    for problems in (ten[:9], ten[::-1]):
        with pytest.raises(ValueError, match="problems is .* there and .* here"):
            solve.solve(problems, Setting("majority", 3), tmp_path, resume=True, **models)


def test_other_weights_are_another_run(models) -> None:
    base = solve.fingerprint(models["model"], models["reward"])
    assert base == solve.fingerprint(NoisyExecutor(), DialledReward())
    assert base != solve.fingerprint(NoisyExecutor(binding_error=0.1), models["reward"])


@pytest.mark.slow
def test_results_depend_neither_on_order_nor_on_packing(tmp_path, ten, models, monkeypatch) -> None:
    setting = Setting("particle_filter", 5)
    solve.solve(ten, setting, tmp_path / "one", **models)
    monkeypatch.setattr(solve, "MAX_PROBLEMS", 3)
    solve.solve(ten[::-1], setting, tmp_path / "other", **models)
    first, second = lines_in(tmp_path / "one"), lines_in(tmp_path / "other")[::-1]
    for line in (*first, *second):  # passes of a batch go on until its slowest row has ended
        del line["cost"]["sequential_passes"]
    assert first == second


def test_keys_are_those_of_seed_id_and_prompt() -> None:
    data = jax.random.key_data(
        problem_keys(
            0, [Question("1", "A=7 ? A"), Question("2", "A=7 ? A"), Question("1", "A=8 ? A")]
        )
    )
    again = jax.random.key_data(problem_keys(0, [Question("2", "A=7 ? A", "7")]))
    assert len(np.unique(np.asarray(data), axis=0)) == 3
    assert (data[1] == again[0]).all(), "the answer and the neighbours do not matter"
    assert (jax.random.key_data(problem_keys(1, [Question("2", "A=7 ? A")]))[0] != data[1]).any()


@pytest.mark.slow
def test_majority_and_best_of_n_share_their_samples(ten, models) -> None:
    pools = [
        methods.run_method(Setting(method, 6), models["model"], models["reward"], ten)[1]
        for method in ("majority", "best_of_n")
    ]
    assert (pools[0].particles["tokens"] == pools[1].particles["tokens"]).all()


@pytest.mark.slow
def test_no_method_sees_the_answer(tmp_path, ten, models) -> None:
    wrong = [Question(q.id, q.prompt, "none of these", q.source) for q in ten]
    for name, asked in (("right", ten), ("wrong", wrong)):
        solve.solve(asked, Setting("particle_filter", 4), tmp_path / name, **models)
    first, second = lines_in(tmp_path / "right"), lines_in(tmp_path / "wrong")
    for line in (*first, *second):
        del line["correct"]
    assert first == second


def test_without_answers_nothing_is_scored(tmp_path: Path, ten, models) -> None:
    asked = [Question(q.id, q.prompt) for q in ten]
    content = solve.solve(asked, Setting("majority", 3), tmp_path, **models)
    assert content["methods"]["majority"]["accuracy"] is None
    assert content["methods"]["majority"]["decoded_tokens"] > 0
    assert not list(tmp_path.glob("*.png"))
    assert all("correct" not in line for line in lines_in(tmp_path))
    summary.table(content)


def test_known_answers_are_scored_where_some_are_not(tmp_path: Path, ten, models) -> None:
    asked = [Question(q.id, q.prompt, q.answer if i % 2 else None) for i, q in enumerate(ten)]
    figures = solve.solve(asked, Setting("majority", 3), tmp_path, **models)["methods"]["majority"]
    assert figures["num_known"] == 5 and figures["num_problems"] == 10
    correct = [line["correct"] for line in lines_in(tmp_path) if "correct" in line]
    assert figures["accuracy"] == pytest.approx(np.mean(correct))


@pytest.mark.slow
def test_one_problem_has_no_standard_error(tmp_path: Path, ten, models) -> None:
    content = solve.solve(ten[:1], Setting("particle_filter", 1), tmp_path, **models)
    assert content["methods"]["particle_filter"]["standard_error"] is None
    assert content["methods"]["particle_filter"]["accuracy"] in (0.0, 1.0)


def test_the_archive_holds_the_weighted_particles(tmp_path: Path, ten, models) -> None:
    solve.solve(ten, Setting("particle_filter", 5), tmp_path, **models)
    lines = lines_in(tmp_path)
    with xarray.open_dataset(tmp_path / "posterior.nc") as found:
        assert dict(found.sizes) == {"problem": 10, "particle": 5, "step": 9, "token": 108}
        assert found.attrs["seed"] == 0 and "strength" not in found.attrs.get("target", "strength")
        assert json.loads(found.attrs["versions"])["jax"]
        assert list(found.problem.values) == [line["id"] for line in lines]
        weights = np.exp(found.log_weight.values)
        weights /= weights.sum(axis=1, keepdims=True)
        for i, line in enumerate(lines):
            share = weights[i][found.answer.values[i] == (line["answer"] or "")].sum()
            assert share == pytest.approx(line["probability"], abs=1e-5)
            assert float(found.log_evidence[i]) == pytest.approx(line["log_evidence"], abs=1e-5)
        lengths = (found.tokens.values > 0).sum(axis=-1)
        assert (lengths == found.length.values).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_arviz_reads_equally_weighted_draws(tmp_path: Path, ten, models) -> None:
    solve.solve(ten, Setting("particle_filter", 8), tmp_path, **models)
    draws = arviz.from_netcdf(tmp_path / "posterior.nc").posterior
    assert draws["answer"].dims == ("chain", "draw", "problem")
    line = lines_in(tmp_path)[3]
    share = float((draws["answer"].values[0, :, 3] == (line["answer"] or "")).mean())
    assert share == pytest.approx(line["probability"], abs=2 / 8)


def test_json_is_strict() -> None:
    text = to_json({"a": float("nan"), "b": [float("inf"), np.float32(0.5)], "c": np.int64(3)})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 0.5], "c": 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("beam",), "method is 'beam'; expected one of greedy, majority"),
        (("majority", 0), "num_particles must be at least 1, got 0"),
        (("majority", 4, -1), "seed must be at least 0"),
        (("particle_filter", 4, 0, "product"), "reward_target must be one of"),
    ],
)
def test_bad_settings_are_named(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Setting(*arguments)


def test_a_bad_strength_is_refused_before_a_folder_is_made(tmp_path, ten, models) -> None:
    setting = Setting("particle_filter", 4, strength=float("nan"))
    with pytest.raises(ValueError, match="strength must be a finite number"):
        solve.solve(ten, setting, tmp_path / "out", **models)
    assert not (tmp_path / "out").exists()
