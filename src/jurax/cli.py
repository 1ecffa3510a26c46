"""The command line: arguments, progress and messages; the work is done by the library.

jurax demo     four methods on generated problems at equal decoded tokens
jurax solve    problems from a file, or generated, by one method
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

app = typer.Typer(
    help="Language models that reason, as weighted sequential programs with a posterior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
messages = Console(stderr=True)


NumProblems = Annotated[int, typer.Option(min=1, help="Number of generated problems.")]
NumParticles = Annotated[int, typer.Option(min=1, help="Samples or particles of each problem.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of generated problems and of all draws.")]


@app.callback()
def main() -> None:
    """Take commands."""


@app.command()
def demo(
    num_problems: NumProblems = 100,
    seed: Seed = 0,
    num_particles: NumParticles = 16,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
) -> None:
    """Compare greedy, majority, best of N and the particle filter at equal decoded tokens."""
    with reported():
        from jurax.models.language import demo as demonstration
        from jurax.models.language.default import load_default
        from jurax.models.language.methods import REWARD_TARGET

        started = time.perf_counter()
        model, reward = load_default()
        with progress() as bar:
            main, smaller = demonstration.settings(num_particles, seed)
            tasks = {
                setting: bar.add_task(
                    f"{setting.method} ({setting.num_samples})", total=num_problems
                )
                for setting in [*main, *smaller]
            }
            content = demonstration.demo(
                output,
                model=model,
                reward=reward,
                num_problems=num_problems,
                num_particles=num_particles,
                seed=seed,
                advance=lambda setting, count: bar.advance(tasks[setting], count),
            )
        show(content, output)
        strength = dict(reward.strengths)[REWARD_TARGET]
        console = Console()
        console.print(
            f"strength fitted on validation: {strength:g} (reward target {REWARD_TARGET})"
        )
        console.print(f"{time.perf_counter() - started:.0f} s in all")


@app.command()
def solve(
    method: Annotated[
        str, typer.Option(help="particle_filter, majority, best_of_n or greedy.")
    ] = "particle_filter",
    input: Annotated[
        Path | None,
        typer.Option(help='Problems as JSON lines with "prompt", optional "id" and "answer".'),
    ] = None,
    num_problems: NumProblems = 100,
    seed: Seed = 0,
    num_particles: NumParticles = 16,
    reward_target: Annotated[
        str | None, typer.Option(help="odds, emission or value; default: as in the demo.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Exponent of the reward; default: as fitted.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/solve"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
) -> None:
    """Solve problems from a file, or generated ones, by one method."""
    with reported():
        from jurax.models.language import questions as problems
        from jurax.models.language import solve as solving
        from jurax.models.language.default import load_default
        from jurax.models.language.methods import REWARD_TARGET, Setting

        target = REWARD_TARGET if reward_target is None else reward_target
        setting = Setting(method, num_particles, seed, target, strength)
        if input is None:
            questions = problems.generate_questions(num_problems, seed)
        else:
            questions = problems.read_questions(input)
        model, reward = load_default()
        with progress() as bar:
            task = bar.add_task(method, total=len(questions))
            content = solving.solve(
                questions,
                setting,
                output,
                model=model,
                reward=reward,
                resume=resume,
                advance=lambda count: bar.advance(task, count),
            )
        show(content, output)


def show(content: dict, output: Path) -> None:
    """Print the table, the targets and where the files are."""
    from jurax.models.language.summary import table

    console = Console()
    console.print(table(content))
    for name, gain in content["differences"].items():
        error = gain["standard_error"]
        suffix = "" if error is None else f" +- {error:.1%}"
        console.print(f"{name}: {gain['accuracy']:+.1%}{suffix} (paired)", highlight=False)
    for name, figures in content["methods"].items():
        console.print(f"target of {name}: {figures['target']}", highlight=False)
    files = ", ".join(sorted(path.name for path in output.iterdir() if path.is_file()))
    console.print(f"files in {output}: {files}", highlight=False)


def progress() -> Progress:
    """A bar for each method, on the error stream, so that output can be piped."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=messages)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Print errors of users as one message and leave with status 1."""
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        messages.print(
            f"[bold red]error:[/] {rich_escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from None


def rich_escape(text: str) -> str:
    """Text in which brackets are no markup."""
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    app()
