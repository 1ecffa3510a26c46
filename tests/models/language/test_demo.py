"""The demonstration on a few problems; the noisy executor stands for the language model."""

import json
from pathlib import Path

import pytest

from jurax.models.language.demo import demo, settings
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.methods import METHODS
from jurax.models.language.noisy_executor import NoisyExecutor

pytestmark = pytest.mark.slow

FILES = {
    "accuracy.png", "answers.jsonl", "answers_best_of_n.jsonl", "answers_greedy.jsonl",
    "answers_majority.jsonl", "answers_particle_filter_2.jsonl", "calibration.png", "posterior.nc",
    "run.json", "summary.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def content_and_folder(tmp_path_factory) -> tuple[dict, Path, list]:
    folder, seen = tmp_path_factory.mktemp("demo"), []
    content = demo(
        folder,
        model=NoisyExecutor(),
        reward=DialledReward(),
        num_problems=8,
        num_particles=8,
        advance=lambda setting, count: seen.append((setting.method, setting.num_samples, count)),
    )
    return content, folder, seen


def test_four_methods_on_the_same_problems(content_and_folder) -> None:
    content, folder, seen = content_and_folder
    assert tuple(content["methods"]) == METHODS
    assert {path.name for path in folder.iterdir()} == FILES
    ids = [
        [json.loads(line)["id"] for line in (folder / name).read_text().splitlines()]
        for name in FILES
        if name.endswith(".jsonl")
    ]
    assert len(ids) == 5 and all(found == ids[0] for found in ids) and len(ids[0]) == 8
    assert seen == [(m, 1 if m == "greedy" else 8, 8) for m in METHODS] + [
        ("particle_filter", 2, 8)
    ]


def test_equal_decoded_tokens(content_and_folder) -> None:
    spent = {m: f["decoded_tokens"] for m, f in content_and_folder[0]["methods"].items()}
    assert spent["majority"] == spent["best_of_n"]
    assert spent["particle_filter"] == pytest.approx(spent["majority"], rel=0.02)
    assert spent["greedy"] == pytest.approx(spent["majority"] / 8, rel=0.02)


def test_differences_are_paired_with_the_filter(content_and_folder) -> None:
    content = content_and_folder[0]
    methods, gains = content["methods"], content["differences"]
    assert set(gains) == {f"particle_filter - {name}" for name in METHODS[:3]}
    gain = gains["particle_filter - majority"]["accuracy"]
    difference = methods["particle_filter"]["accuracy"] - methods["majority"]["accuracy"]
    assert gain == pytest.approx(difference)


def test_the_same_demonstration_is_replaced_and_another_refused(tmp_path: Path) -> None:
    models = {"model": NoisyExecutor(), "reward": DialledReward()}
    first = demo(tmp_path, num_problems=2, num_particles=1, **models)
    lines = (tmp_path / "answers.jsonl").read_bytes()
    again = demo(tmp_path, num_problems=2, num_particles=1, **models)
    assert (tmp_path / "answers.jsonl").read_bytes() == lines
    assert first["methods"]["greedy"]["accuracy"] == again["methods"]["greedy"]["accuracy"]
    with pytest.raises(ValueError, match="holds another run .seed is 0 there and 1 here"):
        demo(tmp_path, num_problems=2, num_particles=1, seed=1, **models)


def test_a_smaller_filter_only_where_there_is_one() -> None:
    assert settings(3, seed=0)[1] == []
    assert [setting.num_particles for setting in settings(16, seed=0)[1]] == [4]
