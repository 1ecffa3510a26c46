"""Quality gates of a (policy, reward) pair on RegChain, measured on one pool of samples.

A suite of problems is useful for comparing reasoning methods only if single samples are often
wrong, many samples contain the truth, voting cannot find it, and the reward is informative but
imperfect. The reward is judged *inside* a problem (right against wrong samples of the same one):
a pooled AUC can come from the difficulty of problems alone.

Shape letters: B problems, N samples of each, T tokens of a solution.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jurax.models.language.cache import start
from jurax.models.language.regchain import Problem
from jurax.models.language.regchain_check import extract_answer, liveness
from jurax.models.language.regchain_corpus import TOKENS_PER_STEP
from jurax.models.language.tokenizer import END, PAD, STEP, decode, encode
from jurax.models.language.transformer import Transformer

CLIP = -3.0


class Pool(NamedTuple):
    """Samples of the policy with their labels and reward scores.

    Attributes:
        tokens: int [B, N, T], padded with <pad>.
        right: bool [B, N], finished with the right answer.
        answers: object [B, N], text or None.
        scores: float [B, N, T], running sum of clipped log-probabilities under the reward.
        live: bool [B, N, T], liveness of the prefix at the tokens that end a step.
        ends: bool [B, N, T], tokens `;` inside the solution.
    """

    tokens: np.ndarray
    right: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    live: np.ndarray
    ends: np.ndarray


@dataclasses.dataclass(frozen=True)
class Gates:
    """Figures of a pool; `failures()` names those outside of their gates.

    Attributes:
        num_problems: B.
        num_samples: N.
        finished: share of samples with an answer.
        pass_at_1: mean share of right samples.
        pass_at_1_by_length: the same for each number of instructions.
        coverage: share of problems with at least one right sample.
        majority: accuracy of the most frequent answer, ties shared.
        outcome_auc: AUC of the final score inside a problem, mean over those with 5 % to 95 % of
            their samples right.
        outcome_auc_pooled: over all samples; not gated.
        step_auc: AUC of the score after a step for the liveness of the prefix, over all steps.
        step_auc_inside: the same inside (problem, step), mean; not gated.
        best_of_16: accuracy of the best score of 16 samples.
        best_of_16_gain: its paired difference to pass@1, in standard errors.
        success_histogram: problems by share of right samples, bins 0 .02 .1 .25 .5 .75 .9 1.
    """

    num_problems: int
    num_samples: int
    finished: float
    pass_at_1: float
    pass_at_1_by_length: dict[int, float]
    coverage: float
    majority: float
    outcome_auc: float
    outcome_auc_pooled: float
    step_auc: float
    step_auc_inside: float
    best_of_16: float
    best_of_16_gain: float
    success_histogram: tuple[int, ...]

    def failures(self) -> list[str]:
        """Gates that are missed, as sentences; empty if all are met."""
        by_length = self.pass_at_1_by_length.values()
        limits = {
            "pass@1": (self.pass_at_1, 0.2, 0.6),
            "coverage": (self.coverage, 0.9, 1.0),
            "majority": (self.majority, 0.0, self.coverage - 0.15),
            "smallest pass@1 of a length": (min(by_length), 0.02, 0.98),
            "largest pass@1 of a length": (max(by_length), 0.02, 0.98),
            "outcome AUC inside a problem": (self.outcome_auc, 0.65, 0.92),
            "step AUC": (self.step_auc, 0.65, 0.95),
            "gain of best-of-16 in standard errors": (self.best_of_16_gain, 2.0, np.inf),
        }
        return [
            f"{name} is {value:.3f}; its gate is [{low:.2f}, {high:.2f}]"
            for name, (value, low, high) in limits.items()
            if not low <= value <= high
        ]


def measure(
    key: Array,
    policy: Transformer,
    reward: Transformer,
    problems: Sequence[Problem],
    *,
    num_samples: int = 64,
    batch: int = 25,
) -> Gates:
    """Sample a pool and compute the figures. `key` is consumed."""
    return summarize(problems, draw_pool(key, policy, reward, problems, num_samples, batch))


def draw_pool(
    key: Array,
    policy: Transformer,
    reward: Transformer,
    problems: Sequence[Problem],
    num_samples: int = 64,
    batch: int = 25,
) -> Pool:
    """Samples at temperature 1, scored by the reward; `batch` problems at a time."""
    max_tokens = TOKENS_PER_STEP * max(p.num_steps for p in problems) + 3
    tokens, lengths = pad_prompts(problems)
    # Problems of one length run together: rows of a batch end at the same time.
    order = np.argsort([p.num_steps for p in problems], kind="stable")
    solutions = np.zeros((len(problems), num_samples, max_tokens), np.int32)
    scores = np.zeros(solutions.shape, np.float32)
    for i in range(0, len(problems), batch):
        rows = np.resize(order[i : i + batch], batch)  # the last batch is filled up by repetition
        prompts = (jnp.asarray(tokens[rows]), jnp.asarray(lengths[rows]))
        drawn = sample(jax.random.fold_in(key, i), policy, *prompts, num_samples, max_tokens)
        solutions[rows], scores[rows] = drawn, score(reward, *prompts, drawn)
    return _label(problems, solutions, scores)


def pad_prompts(problems: Sequence[Problem]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [B, P] padded at the right, and their lengths [B]."""
    ids = [encode(problem.prompt) for problem in problems]
    lengths = np.array([len(x) for x in ids], np.int32)
    tokens = np.full((len(ids), lengths.max()), PAD, np.int32)
    for row, x in zip(tokens, ids, strict=True):
        row[: len(x)] = x
    return tokens, lengths


def sample(
    key: Array,
    model: Transformer,
    prompts: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    num_samples: int,
    max_tokens: int,
) -> Int[Array, "B N T"]:
    """Solutions drawn from the model at temperature 1, padded after <end>."""
    graphdef, params = nnx.split(model)
    return _sample(graphdef, num_samples, max_tokens, key, params, prompts, lengths)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(graphdef, num_samples, max_tokens, key, params, prompts, lengths):
    model = nnx.merge(graphdef, params)
    logits, read = model(prompts, counts=lengths)
    cache = start(read, num_samples, max_tokens)
    last = jnp.take_along_axis(logits, lengths[:, None, None] - 1, axis=1)[:, 0]
    rows = prompts.shape[0] * num_samples
    tokens = jnp.full((rows, max_tokens), PAD, jnp.int32)

    def unfinished(carry):
        time, _, _, _, done = carry
        return (time < max_tokens) & ~done.all()

    def advance(carry):
        time, tokens, logits, cache, done = carry
        drawn = jax.random.categorical(jax.random.fold_in(key, time), logits)
        drawn = jnp.where(done, PAD, drawn)
        tokens = tokens.at[:, time].set(drawn)
        logits, cache = model(drawn[:, None], cache)
        return time + 1, tokens, logits[:, 0], cache, done | (drawn == END)

    begin = (0, tokens, jnp.repeat(last, num_samples, axis=0), cache, jnp.zeros(rows, bool))
    tokens = jax.lax.while_loop(unfinished, advance, begin)[1]
    return tokens.reshape(prompts.shape[0], num_samples, max_tokens)


def score(
    model: Transformer,
    prompts: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    solutions: Int[Array, "B N T"],
) -> Float[Array, "B N T"]:
    """Running sum of max(log p(token | prefix), -3) over the tokens of each solution."""
    graphdef, params = nnx.split(model)
    return _score(graphdef, params, prompts, lengths, solutions)


@functools.partial(jax.jit, static_argnums=0)
def _score(graphdef, params, prompts, lengths, solutions):
    model = nnx.merge(graphdef, params)
    logits, read = model(prompts, counts=lengths)
    last = jnp.take_along_axis(logits, lengths[:, None, None] - 1, axis=1)
    num_samples, num = solutions.shape[1:]
    tokens = solutions.reshape(-1, num)
    logits, _ = model(tokens[:, :-1], start(read, num_samples, num - 1))
    logits = jnp.concatenate([jnp.repeat(last, num_samples, axis=0), logits], axis=1)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    clipped = jnp.where(tokens == PAD, 0.0, jnp.maximum(log_probs, CLIP))
    return jnp.cumsum(clipped, axis=1).reshape(solutions.shape)


def _label(problems: Sequence[Problem], tokens: np.ndarray, scores: np.ndarray) -> Pool:
    answers = np.full(tokens.shape[:2], None, object)
    live = np.zeros(tokens.shape, bool)
    ends = tokens == STEP
    for b, n in np.ndindex(*tokens.shape[:2]):
        answers[b, n] = extract_answer(decode(tokens[b, n]))
        for t in np.flatnonzero(ends[b, n]):
            live[b, n, t] = liveness(problems[b], tokens[b, n, : t + 1])
    right = answers == np.array([[p.answer] for p in problems], object)
    return Pool(tokens, right, answers, scores, live, ends)


def summarize(problems: Sequence[Problem], pool: Pool) -> Gates:
    """The figures of a pool."""
    share = pool.right.mean(axis=1)
    steps = np.array([p.num_steps for p in problems])
    final = pool.scores[:, :, -1]
    mixed = (share >= 0.045) & (share <= 0.955)
    inside = [auc(final[b], pool.right[b]) for b in np.flatnonzero(mixed)]
    best = _best_of(final, pool.right, 16)
    gain = best - share
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
    return Gates(
        num_problems=len(problems),
        num_samples=pool.right.shape[1],
        finished=float((pool.answers != np.array(None)).mean()),
        pass_at_1=float(share.mean()),
        pass_at_1_by_length={int(m): float(share[steps == m].mean()) for m in np.unique(steps)},
        coverage=float(pool.right.any(axis=1).mean()),
        majority=float(np.mean([_vote(*x) for x in zip(pool.answers, pool.right, strict=True)])),
        outcome_auc=float(np.mean(inside)) if inside else np.nan,
        outcome_auc_pooled=auc(final.ravel(), pool.right.ravel()),
        step_auc=auc(pool.scores[pool.ends], pool.live[pool.ends]),
        step_auc_inside=_step_auc_inside(pool),
        best_of_16=float(best.mean()),
        best_of_16_gain=float(gain.mean() / error) if error else np.nan,
        success_histogram=_histogram(share),
    )


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a right one scores above a wrong one; ties count half, NaN without both.

    Example:
        >>> auc(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]))
        1.0
    """
    right, wrong = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(right) or not len(wrong):
        return float("nan")
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.mean() / (2 * len(wrong)))


def _step_auc_inside(pool: Pool) -> float:
    number = np.cumsum(pool.ends, axis=-1)
    found = []
    for b in range(len(pool.ends)):
        for step in range(1, number[b].max() + 1):
            here = pool.ends[b] & (number[b] == step)
            found.append(auc(pool.scores[b][here], pool.live[b][here]))
    return float(np.nanmean(found)) if not np.all(np.isnan(found)) else float("nan")


def _best_of(scores: np.ndarray, right: np.ndarray, num: int) -> np.ndarray:
    """Mean over disjoint blocks of `num` samples of the rightness of the best score, [B]."""
    num = min(num, scores.shape[1])
    blocks = scores.shape[1] // num
    shape = (len(scores), blocks, num)
    best = scores[:, : blocks * num].reshape(shape).argmax(axis=-1)
    chosen = np.take_along_axis(right[:, : blocks * num].reshape(shape), best[..., None], axis=-1)
    return chosen[..., 0].mean(axis=1)


def _vote(answers: np.ndarray, right: np.ndarray) -> float:
    counts: dict[str, int] = {}
    truth = {answer for answer, ok in zip(answers, right, strict=True) if ok}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    top = [answer for answer, count in counts.items() if count == max(counts.values())]
    return sum(answer in truth for answer in top) / len(top) if top else 0.0


def _histogram(share: np.ndarray) -> tuple[int, ...]:
    edges = [0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0 + 1e-9]
    return tuple(int(x) for x in np.histogram(share, edges)[0])
