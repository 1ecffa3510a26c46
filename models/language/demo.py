"""The demonstration: four methods on the same generated problems, at equal decoded tokens.

Majority and best of N draw the same N samples; the particle filter extends N particles. A solution
of RegChain has the same number of tokens whatever its values, so that N samples and N particles
decode the same number of tokens up to malformed solutions (within 2 %; measured and printed).
Discarded particles count. Greedy decodes one solution and is shown at its own cost. The filter is
run once more with N / 4 particles for the accuracy curve.

The output folder holds `answers.jsonl` and `posterior.nc` of the particle filter, the lines of the
other methods in `answers_<method>.jsonl`, `summary.json`, `accuracy.png` and `calibration.png`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jurax.models.language import summary
from jurax.models.language.archive import write_archive
from jurax.models.language.methods import METHODS, Setting
from jurax.models.language.model import AbstractLanguageModel, AbstractReward
from jurax.models.language.outcome import Outcome
from jurax.models.language.questions import generate_questions, prompt_lengths
from jurax.models.language.run_folder import RunFolder
from jurax.models.language.solve import run_setting
from jurax.ppl.storage import versions

MAIN = "particle_filter"

Advance = Callable[[Setting, int], None]


def demo(
    output: str | Path,
    *,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    num_problems: int = 100,
    num_particles: int = 16,
    seed: int = 0,
    advance: Advance = lambda setting, count: None,
) -> dict[str, Any]:
    """Run the four methods and write the output folder.

    Args:
        output: a new or empty folder, or one that holds the same demonstration, which is replaced.
        model: the language model.
        reward: its reward model.
        num_problems: problems of RegChain's test split.
        num_particles: N.
        seed: of the problems and of all draws.
        advance: called with a setting and the number of problems it has just finished.

    Returns:
        The content of `summary.json`; see `jurax.models.language.summary`.

    Raises:
        ValueError: for bad arguments, or an output folder that holds something else.
    """
    main, smaller = settings(num_particles, seed)
    questions = generate_questions(num_problems, seed)
    run = {
        "command": "demo",
        "num_problems": num_problems,
        "num_particles": num_particles,
        "seed": seed,
        "versions": versions(),
    }
    folder = RunFolder(output, run, existing="replace")
    lengths = prompt_lengths(questions, model)

    def outcome_of(setting: Setting, lines_file: str) -> Outcome:
        return run_setting(
            folder, questions, lengths, setting, model=model, reward=reward,
            lines_file=lines_file, advance=lambda count: advance(setting, count),
        )  # fmt: skip

    outcomes = {setting.method: outcome_of(setting, file_of(setting)) for setting in main}
    extra = [outcome_of(s, f"answers_{MAIN}_{s.num_particles}.jsonl") for s in smaller]
    ids = [question.id for question in questions]
    attributes = {**run, "method": MAIN, "target": outcomes[MAIN].target}
    write_archive(folder.path / "posterior.nc", ids, outcomes[MAIN].arrays, attributes)
    return summary.write_results(folder, outcomes, run, {MAIN: extra})


def settings(num_particles: int, seed: int) -> tuple[list[Setting], list[Setting]]:
    """The four methods, and the filter at a smaller budget where there is one."""
    main = [Setting(method, num_particles, seed) for method in METHODS]
    smaller = [Setting(MAIN, num_particles // 4, seed)] if num_particles >= 4 else []
    return main, smaller


def file_of(setting: Setting) -> str:
    """Where the lines of a method go."""
    return "answers.jsonl" if setting.method == MAIN else f"answers_{setting.method}.jsonl"
