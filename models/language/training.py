"""The training loop of the RegChain transformers: AdamW, checkpoints, resume.

Step i draws its batch from a generator seeded by (seed, i), so a run that is killed and resumed
from its checkpoint equals an uninterrupted one bit for bit (same machine and versions).
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from safetensors import safe_open
from safetensors.numpy import save

from jurax.models.language.curriculum import Curriculum, Progress, next_batch, observe
from jurax.models.language.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps and learning rate: linear warm-up, constant, linear fall over the last part.

    Attributes:
        num_steps: updates.
        peak: constant learning rate.
        warmup: updates until the peak.
        fall: share of the updates in which the rate falls.
        end: last rate as a share of the peak.
        seed: of the batches.
    """

    num_steps: int
    peak: float = 2.5e-3
    warmup: int = 100
    fall: float = 0.4
    end: float = 0.02
    seed: int = 0

    def rate(self) -> optax.Schedule:
        """Learning rate as a function of the step."""
        falling = int(self.fall * self.num_steps)
        parts = [
            optax.linear_schedule(0.0, self.peak, self.warmup),
            optax.constant_schedule(self.peak),
            optax.linear_schedule(self.peak, self.end * self.peak, falling),
        ]
        return optax.join_schedules(parts, [self.warmup, self.num_steps - falling])

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW with clipped gradients."""
        adamw = optax.adamw(self.rate(), b1=0.9, b2=0.98, weight_decay=0.01)
        return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def mean_loss(
    model: Transformer,
    tokens: Int[Array, "R T"],
    weights: Float[Array, "R T"],
) -> Float[Array, ""]:
    """Weighted mean of -log p(token | tokens before) over `tokens [R, T]`."""
    logits, _ = model(tokens[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def train(
    model: Transformer,
    curriculum: Curriculum,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    report: Callable[[int, Transformer], str] | None = None,
    report_every: int = 100,
    save_seconds: float = 60.0,
    stop_after: int | None = None,
) -> Transformer:
    """Train for `schedule.num_steps` updates, or what is left of them after `checkpoint`.

    Args:
        model: initial weights.
        curriculum: batches.
        schedule: steps and rates.
        checkpoint: file that is read if it exists, and written every `save_seconds`.
        report: text printed every `report_every` steps.
        report_every: steps between reports.
        save_seconds: seconds between checkpoints.
        stop_after: stop when so many updates are done in all (None: all of the schedule).

    Raises:
        ValueError: the checkpoint belongs to another run.
    """
    stop = schedule.num_steps if stop_after is None else min(stop_after, schedule.num_steps)
    graphdef, params = nnx.split(model)
    optimizer = schedule.optimizer()
    state, progress, first = optimizer.init(params), Progress(longest=curriculum.start), 0
    if checkpoint is not None and checkpoint.exists():
        (params, state), progress, first = _load(checkpoint, (params, state), schedule)

    @jax.jit
    def update(params, state, tokens, weights):
        loss = lambda params: mean_loss(nnx.merge(graphdef, params), tokens, weights)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    saved = time.monotonic()
    with _bar() as bar:
        task = bar.add_task("training", total=stop, completed=first, text="")
        for step in range(first, stop):
            batch = next_batch(np.random.default_rng([schedule.seed, step]), curriculum, progress)
            params, state, value = update(params, state, batch.tokens, batch.weights)
            observe(curriculum, progress, batch, float(value))
            bar.update(task, advance=1, text=_describe(progress))
            if report is not None and (step + 1) % report_every == 0:
                text = f"step {step + 1} ({bar.tasks[0].elapsed:.0f} s)  {_describe(progress)}"
                print(f"{text}  {report(step + 1, nnx.merge(graphdef, params))}", flush=True)
            last = step + 1 == stop
            if checkpoint is not None and (last or time.monotonic() - saved > save_seconds):
                _save(checkpoint, (params, state), progress, step + 1, schedule)
                saved = time.monotonic()
    return nnx.merge(graphdef, params)


def _bar() -> Bar:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    return Bar(TextColumn("{task.description}"), *columns)


def _describe(progress: Progress) -> str:
    means = [np.mean(x) if x else np.nan for x in (progress.chain_losses, progress.drill_losses)]
    return f"chain {means[0]:.3f} (up to {progress.longest})  drill {means[1]:.3f}"


def _save(path: Path, tree, progress: Progress, step: int, schedule: Schedule) -> None:
    tensors = {f"{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(tree))}
    header = {
        "step": step,
        "progress": dataclasses.asdict(progress),
        "schedule": dataclasses.asdict(schedule),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(save(tensors, metadata={"training": json.dumps(header)}))
    os.replace(temporary, path)


def _load(path: Path, tree, schedule: Schedule):
    with safe_open(path, framework="numpy") as file:
        header = json.loads((file.metadata() or {}).get("training", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("schedule") != dataclasses.asdict(schedule):
        raise ValueError(
            f"{path} is a checkpoint of another run: its schedule is {header.get('schedule')}"
        )
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) != len(tensors):
        raise ValueError(f"{path} has {len(tensors)} tensors; this run has {len(leaves)}")
    leaves = [jnp.asarray(tensors[str(i)]) for i in range(len(leaves))]
    return jax.tree.unflatten(structure, leaves), Progress(**header["progress"]), header["step"]
