"""Train the shipped models: `python -m jurax.models.language.train base|policy|reward`.

base     random weights, solutions without faults: learns the text and the arithmetic
policy   base, then solutions of the noisy executor
reward   base, then solutions of a teacher that has a part of the executor's misconceptions
"""

import json
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx

from jurax.models.language.curriculum import Curriculum
from jurax.models.language.executor import ExecutorDials, clean_law, executor_law, teacher_law
from jurax.models.language.regchain import draw_chains
from jurax.models.language.regchain_corpus import TOKENS_PER_STEP, write_prompts, write_solutions
from jurax.models.language.saving import load_model, save_model
from jurax.models.language.tokenizer import (
    BINDING,
    DEFINITION,
    MAX_STEPS,
    MODULUS,
    NAME,
    NAMES,
    NUM_LEAVES,
    NUMBER,
    VOCABULARY,
)
from jurax.models.language.training import Schedule, train
from jurax.models.language.transformer import Transformer, TransformerConfig

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Folder = Annotated[Path, typer.Option(help="Folder of weights and checkpoints.")]
Steps = Annotated[int, typer.Option(help="Updates.")]
Seed = Annotated[int, typer.Option(help="Seed of the batches and of the initial weights.")]


def initial_model(seed: int) -> Transformer:
    """Random weights; in both tables the row of `r1=7` starts as .7 (row of r1 + row of 7).

    A look-up is then one match on the key's own token, which is what makes it learnable early.
    """
    model = Transformer(TransformerConfig(vocab_size=len(VOCABULARY)), nnx.Rngs(seed))
    name, value = np.divmod(np.arange(MODULUS * len(NAMES)), MODULUS)
    registers = NAME + NUM_LEAVES + np.arange(MAX_STEPS)
    for table in (model.embedding, model.head):
        rows = table[...]
        bindings = 0.7 * (rows[NAME + name] + rows[NUMBER + value])
        definitions = slice(DEFINITION, DEFINITION + MAX_STEPS)
        rows = rows.at[BINDING:].set(bindings)
        rows = rows.at[definitions].set(0.7 * (rows[definitions] + rows[registers]))
        table[...] = rows
    return model


def accuracy_report(seed: int = 0, length: int = 5, num: int = 64):
    """A function (step, model) -> text: mean p(true token) by its role, on validation problems."""
    rng = np.random.default_rng([11, seed])
    chains = draw_chains(rng, num, length, "validation")
    prompts = write_prompts(chains)
    tokens = jnp.asarray(
        np.concatenate([prompts, write_solutions(rng, chains, clean_law())], axis=1)
    )
    graphdef = nnx.graphdef(Transformer(TransformerConfig(vocab_size=len(VOCABULARY)), nnx.Rngs(0)))

    @jax.jit
    def probabilities(params):
        logits, _ = nnx.merge(graphdef, params)(tokens[:, :-1])
        probs = jax.nn.softmax(logits)
        return jnp.take_along_axis(probs, tokens[:, 1:, None], axis=-1)[..., 0]

    def report(step: int, model: Transformer) -> str:
        del step
        probs = np.asarray(probabilities(nnx.state(model)))[:, prompts.shape[1] - 1 :]
        roles = (
            probs[:, : TOKENS_PER_STEP * length].reshape(num, length, TOKENS_PER_STEP).mean((0, 1))
        )
        names = ("def", "x", "x=", "xv", "op", "y", "y=", "yv", ">", "res", "r=", ";")
        return " ".join(f"{name} {p:.2f}" for name, p in zip(names, roles, strict=True))

    return report


@app.command()
def base(folder: Folder = Path("out/train"), num_steps: Steps = 1600, seed: Seed = 0) -> None:
    """Learn the text and the arithmetic from random weights."""
    curriculum, schedule = Curriculum(clean_law()), Schedule(num_steps, seed=seed)
    _run("base", folder, initial_model(seed), curriculum, schedule, {})


@app.command()
def policy(folder: Folder = Path("out/train"), num_steps: Steps = 800, seed: Seed = 1) -> None:
    """Learn to err like the noisy executor; starts from base.safetensors of the folder."""
    dials = ExecutorDials()
    _fine_tune("policy", folder, executor_law(dials), num_steps, seed, {"dials": repr(dials)})


@app.command()
def reward(
    folder: Folder = Path("out/train"),
    num_steps: Steps = 600,
    seed: Seed = 2,
    shared: Annotated[
        float, typer.Option(help="Share of the misconceptions of the policy.")
    ] = 0.25,
    own: Annotated[float, typer.Option(help="Share of the other facts it is wrong about.")] = 0.2,
) -> None:
    """Learn from a better teacher; starts from base.safetensors of the folder."""
    law = teacher_law(ExecutorDials(), shared=shared, own=own)
    _fine_tune("reward", folder, law, num_steps, seed, {"shared": str(shared), "own": str(own)})


def _fine_tune(name: str, folder: Path, law, num_steps: int, seed: int, facts: dict) -> None:
    model, _ = load_model(folder / "base.safetensors")
    curriculum = Curriculum(law, start=7, drill_shares=(0.3, 0.3))
    schedule = Schedule(num_steps, peak=1e-3, warmup=100, fall=0.6, seed=seed)
    _run(name, folder, model, curriculum, schedule, facts)


def _run(name: str, folder: Path, model, curriculum, schedule: Schedule, facts: dict) -> None:
    began = time.monotonic()
    checkpoint = folder / f"{name}.checkpoint"
    model = train(model, curriculum, schedule, checkpoint=checkpoint, report=accuracy_report())
    facts |= {"stage": name, "num_steps": str(schedule.num_steps), "seed": str(schedule.seed)}
    facts |= {"seconds_of_last_run": f"{time.monotonic() - began:.0f}"}
    save_model(folder / f"{name}.safetensors", model, facts)
    print(json.dumps(facts))


if __name__ == "__main__":
    app()
