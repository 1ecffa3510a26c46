"""The command line: arguments, progress and messages; the work is done by the library.

jurax demo     four methods on generated problems at equal decoded tokens
jurax solve    problems from a file, or generated, by one method
jurax aggregate  answers of a crowd: labels, workers, a posterior
jurax rank     scores or preferences of judges: a leaderboard with intervals
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

app = typer.Typer(
    help="Language models that reason, as weighted sequential programs with a posterior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
messages = Console(stderr=True)


NumProblems = Annotated[int, typer.Option(min=1, help="Number of generated problems.")]
NumParticles = Annotated[int, typer.Option(min=1, help="Samples or particles of each problem.")]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**32 - 1, help="Seed of generated problems and of all draws."),
]


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


@app.command()
def aggregate(
    answers: Annotated[Path, typer.Argument(help="CSV with the columns task, worker, label.")],
    output: Annotated[Path, typer.Option(help="New folder for the results.")] = Path(
        "out/aggregate"
    ),
    model: Annotated[
        str,
        typer.Option(
            help="dawid-skene, top-two, one-coin, glad, mace, m-msr, kos (two classes), majority, "
            "wawa or zero-based-skill."
        ),
    ] = "dawid-skene",
    truth: Annotated[
        Path | None, typer.Option(help="CSV task, label: score against these; not fitted.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="CSV task, label: known labels that the fit uses.")
    ] = None,
    repeats: Annotated[
        str, typer.Option(help="Answers that repeat a pair: error, first, last or all.")
    ] = "error",
    classes: Annotated[
        str | None, typer.Option(help="All labels on offer, with commas between.")
    ] = None,
    posterior: Annotated[
        str, typer.Option(help="Of top-two: nuts, svi, none, or auto (by size).")
    ] = "auto",
    num_samples: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 300,
    num_warmup: Annotated[int, typer.Option(min=1, help="Warm-up of each chain.")] = 300,
    num_chains: Annotated[int, typer.Option(min=1, help="Chains of NUTS.")] = 2,
    seed: Seed = 0,
) -> None:
    """Aggregate the answers of a crowd: labels.csv, workers.csv, summary.json, figures."""
    with reported():
        from jurax.models.crowd import report

        options = report.Options(
            model=model,
            repeats=repeats,
            classes=None if classes is None else classes.split(","),
            posterior=posterior,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            seed=seed,
        )
        with messages.status("reading") as status:
            content = report.aggregate(
                answers, output, options, truth=truth, gold=gold, say=status.update
            )
        console = Console()
        show_warnings(content["warnings"])
        if content["scores"]:
            figures = {name: round(value, 3) for name, value in content["scores"].items()}
            console.print(f"against known labels: {figures}", highlight=False, markup=False)
        if content["posterior_status"]:
            console.print(f"posterior: {content['posterior_status']}", highlight=False)
        show_files(output)


@app.command()
def rank(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV with the columns item, candidate, judge, score, or model_a, model_b, winner "
            "(and item, judge where known)."
        ),
    ],
    output: Annotated[Path, typer.Option(help="New folder for the results.")] = Path("out/rank"),
    gold: Annotated[
        Path | None, typer.Option(help="CSV item, candidate, gold: true scores that are known.")
    ] = None,
    self_judging: Annotated[
        list[str] | None,
        typer.Option("--self", help="judge=candidate: this judge is this candidate; repeatable."),
    ] = None,
    likelihood: Annotated[str, typer.Option(help="Of scores: joint or marginal.")] = "joint",
    drift: Annotated[
        str, typer.Option(help="How unequal a judge's leniency is: a number in logits, or learn.")
    ] = "learn",
    discrepancy: Annotated[
        float | None, typer.Option(min=0, help="What judges get wrong together, in sds of scores.")
    ] = None,
    dependence: Annotated[
        float, typer.Option(min=0, max=1, help="Correlation of judges' mistakes.")
    ] = 0.25,
    collapse: Annotated[
        str | None, typer.Option(help="Join levels to two: binary, or the first upper level.")
    ] = None,
    repeats: Annotated[
        str, typer.Option(help="Scores given twice by a judge: error, first or last.")
    ] = "error",
    ties: Annotated[str, typer.Option(help="Of preferences: davidson, half or drop.")] = "davidson",
    intervals: Annotated[
        str, typer.Option(help="Of preferences: sandwich, posterior or bootstrap.")
    ] = "sandwich",
    seed: Seed = 0,
) -> None:
    """Rank candidates from judges: leaderboard.csv, judges.csv, summary.json, figures."""
    with reported():
        from jurax.models.judging import report

        options = report.Options(
            likelihood=likelihood,
            drift=drift if drift == "learn" else report.number(drift, "--drift"),
            discrepancy=discrepancy,
            dependence=dependence,
            collapse=collapse,
            repeats=repeats,
            ties=ties,
            intervals=intervals,
            seed=seed,
        )
        own = report.pairs(self_judging or [])
        with messages.status("reading") as status:
            content = report.rank(
                table, output, options, gold=gold, self_map=own or None, say=status.update
            )
        show_warnings(content["warnings"])
        console = Console()
        console.print(f"ranked by {content['target']}", highlight=False, markup=False)
        console.print(ranking_table(output / "leaderboard.csv"))
        show_files(output)


def ranking_table(path: Path) -> Table:
    """The leaderboard for a terminal."""
    import pandas as pd

    table = Table("candidate", "score", "95 %", "rank", "P(best)", "status")
    for row in pd.read_csv(path).to_dict("records"):
        table.add_row(
            str(row["candidate"]),
            f"{row['score']:.3f}",
            f"{row['lower_95']:.3f} to {row['upper_95']:.3f}",
            f"{row['expected_rank']:.1f} ({row['rank_lower']} to {row['rank_upper']})",
            f"{row['p_best']:.2f}",
            row["status"],
        )
    return table


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
    show_files(output)


def show_warnings(warnings: list[str]) -> None:
    """What was seen in the data and in the fit, on the error stream."""
    for text in warnings:
        messages.print(f"warning: {text}", highlight=False, markup=False)


def show_files(output: Path) -> None:
    """Say where the results are."""
    files = ", ".join(sorted(path.name for path in output.iterdir() if path.is_file()))
    Console().print(f"files in {output}: {files}", highlight=False)


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
