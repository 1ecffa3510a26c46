"""The dialled reward against its formula, and its quality on solutions of the executor."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import ImportanceSampling, infer
from jurax.models.language import tokenizer
from jurax.models.language.dialled_reward import MULTIPLIER, DialledReward, hash_tokens
from jurax.models.language.executor import ExecutorDials, executor_law
from jurax.models.language.gates import auc
from jurax.models.language.model import Steps
from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.programs import EXAMPLE
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.regchain import problems, to_chains
from jurax.models.language.regchain_check import liveness
from jurax.models.language.regchain_corpus import write_solutions
from jurax.models.language.reward_targets import FORMULAS, log_potentials
from tests.statistics import assert_mean

ROWS = 64  # every score of these tests has this many rows: one compilation
RIGHT = "r1: A A=7 7 * B B=12 12 > 8 r1=8 ; r2: r1 r1=8 8 - C C=3 3 > 5 r2=5 ; # 5 <end>"


@eqx.filter_jit
def score_step(reward, state, steps):
    return reward.score(state, steps)


def score_texts(reward, prompts, texts, width=12):
    """Log-odds after every step of token rows, a list for each; one row for each prompt."""
    filling = [EXAMPLE] * (-len(texts) % ROWS)
    state = reward.start(reward.encode([*prompts, *filling]), 1, 200)
    found = [[] for _ in texts]
    steps = [cut(text, width) for text in texts]
    for t in range(max(map(len, steps))):
        tokens = np.zeros((len(texts) + len(filling), 12), np.int32)
        counts = np.zeros(len(tokens), np.int32)
        for row, pieces in enumerate(steps):
            if t < len(pieces):
                counts[row] = len(pieces[t])
                tokens[row, : counts[row]] = pieces[t]
        piece = Steps(jnp.asarray(tokens), jnp.asarray(counts), jnp.zeros(len(tokens)))
        state, log_odds = score_step(reward, state, piece)
        for row in np.flatnonzero(counts):
            found[row].append(float(log_odds[row]))
    return found


def cut(text, width):
    """Pieces that end with `;` or `<end>` or have `width` words."""
    pieces = [[]]
    for token in text:
        pieces[-1].append(token)
        if token in (tokenizer.STEP, tokenizer.END) or len(pieces[-1]) == width:
            pieces.append([])
    return [piece for piece in pieces if piece]


def reference(reward, problem, text):
    """The formula of the module docstring, in plain Python with exact integers."""
    rho = float(reward.autocorrelation)
    table = np.asarray(reward.fact_table, float)
    label = python_hash(0, tokenizer.encode(problem.prompt))
    prefix, noise, scores = 0, 0.0, []
    pieces = cut(text, 12)
    for t, piece in enumerate(pieces):
        live = liveness(problem, [token for p in pieces[: t + 1] for token in p])
        if len(piece) == 12:
            prefix = python_hash(prefix, piece)
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(reward.seed), label), prefix)
            z = float(jax.random.normal(key, dtype=jnp.float32))
            op, x, y, v = (piece[k] - base for k, base in ((4, 6), (3, 9), (7, 9), (9, 9)))
            fresh = table[op, x, y, v] + float(reward.prefix_noise) * z
            noise = rho * noise + (1 - rho**2) ** 0.5 * fresh
        stated = piece[9 if len(piece) == 12 else 1] - 9
        bonus = float(reward.hack_bonus) * (stated == int(reward.attractive))
        scores.append(float(reward.gap if live else -reward.gap) + noise + bonus)
    return scores


def python_hash(label, tokens):
    for token in tokens:
        label = (label * MULTIPLIER + token) % 2**32
    return label


def draw_solutions(seed, num, **kwargs):
    suite = problems("train", num, seed=seed, **kwargs)
    rng = np.random.default_rng(seed)
    law = executor_law(ExecutorDials(binding_error=0.1))
    return suite, [write_solutions(rng, to_chains(p), law)[0].tolist() for p in suite]


def pool(key, suite, num_samples, reward, executor=None):
    """Log-odds by step (NaN where there is none), last log-odds, answers, rightness."""
    process = Reasoning(executor or NoisyExecutor(), reward, [p.prompt for p in suite])
    sampler = ImportanceSampling(num_particles=num_samples, history=False)
    particles = jax.tree.map(np.asarray, infer(key, process, sampler).particles)
    tokens, lengths, log_odds = (particles[x] for x in ("tokens", "length", "log_odds"))
    answers = np.take_along_axis(tokens, lengths[..., None] - 2, axis=-1)[..., 0] - tokenizer.NUMBER
    num_steps = np.sum(~np.isnan(log_odds), axis=-1, keepdims=True)
    last = np.take_along_axis(log_odds, num_steps - 1, axis=-1)[..., 0]
    right = answers == np.array([[int(p.answer)] for p in suite])
    return log_odds, last, answers, right


# -------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    "dials",
    [
        {},
        {"gap": 0.3, "fact_noise": 1.5, "prefix_noise": 0.2, "autocorrelation": 0.0, "seed": 5},
        {"hack_bonus": 2.5, "attractive": 4, "autocorrelation": 0.99},
    ],
)
def test_log_odds_follow_the_formula(dials):
    reward = DialledReward(**dials)
    suite, texts = draw_solutions(1, 30, lengths=(1, 8))
    found = score_texts(reward, [p.prompt for p in suite], texts)
    for problem, text, scores in zip(suite, texts, found, strict=True):
        # float32 sums of a handful of terms of size 1
        np.testing.assert_allclose(scores, reference(reward, problem, text), atol=5e-6)


def test_without_noise_the_sign_is_liveness():
    reward = DialledReward(fact_noise=0.0, prefix_noise=0.0)
    suite, texts = draw_solutions(2, 30)
    found = score_texts(reward, [p.prompt for p in suite], texts)
    for problem, text, scores in zip(suite, texts, found, strict=True):
        expected = [liveness(problem, text[: 12 * (t + 1)]) for t in range(len(scores))]
        np.testing.assert_allclose(scores, np.where(expected, 0.8, -0.8), rtol=1e-6)


def test_the_answer_step_and_malformed_steps_leave_the_noise():
    texts = [
        RIGHT,
        RIGHT.replace("# 5", "# 6"),
        RIGHT.replace("r2=5 ;", "r1=5 ;"),
        RIGHT.replace("> 5", "; 5"),
        "# 5 <end>",
    ]
    encoded = [tokenizer.encode(text) for text in texts]
    right, wrong, misbound, broken, early = score_texts(DialledReward(), [EXAMPLE] * 5, encoded)
    assert right[2] == right[1]
    np.testing.assert_allclose(wrong, [right[0], right[1], right[2] - 1.6], rtol=1e-5)
    np.testing.assert_allclose(misbound[:2], [right[0], right[0] - 1.6], rtol=1e-5)
    assert misbound[2] == misbound[1]
    np.testing.assert_allclose(broken, [right[0], *[right[0] - 1.6] * 3], rtol=1e-5)
    np.testing.assert_allclose(early, [0.8], rtol=1e-6)


def test_noise_depends_on_the_text_alone():
    reward = DialledReward()
    suite, texts = draw_solutions(3, 30)
    prompts = [p.prompt for p in suite]
    whole = score_texts(reward, prompts, texts)
    # Other rows beside it, read in pieces that end elsewhere: the scores at ends of steps agree.
    order = np.random.default_rng(0).permutation(30)[:7]
    packed = score_texts(reward, [prompts[i] for i in order], [texts[i] for i in order])
    assert packed == [whole[i] for i in order]
    pieces = score_texts(reward, prompts, texts, width=4)
    assert [scores[2::3][:-1] for scores in pieces] == [scores[:-2] for scores in whole]
    assert [scores[-1] for scores in pieces] == [scores[-1] for scores in whole]


def test_double_precision_has_the_same_noise():
    suite, texts = draw_solutions(3, 10)
    prompts = [p.prompt for p in suite]
    single = score_texts(DialledReward(), prompts, texts)
    with jax.enable_x64(True):
        double = score_texts(DialledReward(), prompts, texts)
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_facts_are_biased_alike_in_all_problems():
    # The same first step in two problems that differ later.
    prompts = [EXAMPLE, "A=7 B=12 C=9 r1: A * B r2: r1 + C ? r2"]
    first = tokenizer.encode(RIGHT)[:12]
    by_fact, by_prefix = (
        score_texts(DialledReward(**dial), prompts, [first, first])
        for dial in ({"prefix_noise": 0.0}, {"fact_noise": 0.0})
    )
    assert by_fact[0] == by_fact[1]
    assert by_prefix[0] != by_prefix[1]


def test_prefix_noise_is_standard_normal_and_new_for_each_prefix():
    suite, texts = draw_solutions(7, 640, lengths=(2, 2))
    reward = DialledReward(gap=0.0, fact_noise=0.0, prefix_noise=1.0, autocorrelation=0.0)
    first, second, _ = np.array(score_texts(reward, [p.prompt for p in suite], texts)).T
    noise = np.concatenate([first, second])
    assert len(np.unique(noise)) == len(noise)  # a value twice in float32: chance 1e-4
    for moment, expected in ((noise, 0), (noise**2, 1), (noise**3, 0), (noise**4, 3)):
        assert_mean(moment, expected)
    assert_mean(first * second, 0.0, resolution=0.06)
    z = np.asarray(DialledReward().fact_table).reshape(-1)[: 19**3] / 0.8
    for moment, expected in ((z, 0), (z**2, 1)):
        assert_mean(moment, expected)


def test_hashes_of_many_prefixes_differ():
    # All 130,321 two-step texts of one problem: 2 collisions are expected of a random function.
    results = np.arange(19)
    x = np.stack(np.meshgrid(*[results] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    step = np.array(tokenizer.encode("r1: A A=7 7 * B B=12 12 > 8 r1=8 ;"), np.uint32)
    steps = np.tile(step, (len(x), 2, 1))
    for half in range(2):
        steps[:, half, 3] = tokenizer.NUMBER + x[:, 2 * half]
        steps[:, half, 9] = tokenizer.NUMBER + x[:, 2 * half + 1]
        steps[:, half, 10] = tokenizer.BINDING + 57 + x[:, 2 * half + 1]
    labels = jax.vmap(lambda row: hash_tokens(jnp.uint32(0), row))(
        jnp.asarray(steps.reshape(-1, 24))
    )
    assert len(np.unique(labels)) >= len(x) - 12


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ({"gap": -1.0}, "gap is -1.0; expected a finite number >= 0"),
        ({"fact_noise": float("nan")}, "fact_noise is nan"),
        ({"prefix_noise": float("inf")}, "prefix_noise is inf"),
        ({"autocorrelation": 1.0}, "autocorrelation is 1.0"),
        ({"hack_bonus": float("inf")}, "hack_bonus is inf"),
        ({"attractive": 19}, "attractive is 19; expected an integer in 0..18"),
    ],
)
def test_bad_dials_are_named(dial, message):
    with pytest.raises(ValueError, match=message):
        DialledReward(**dial)


def test_malformed_prompts_are_named():
    with pytest.raises(ValueError, match="prompt 0 is no RegChain problem"):
        DialledReward().encode(["A=7 B=12 C=3 ? C"])


# -------------------------------------------------------------------- its quality


@pytest.mark.slow
def test_quality_of_the_default_dials(key):
    suite = problems("validation", 120, seed=0)
    _, last, _, right = pool(key, suite, 64, DialledReward())
    share = right.mean(axis=1)
    mixed = np.flatnonzero((share >= 0.045) & (share <= 0.955))
    inside = [auc(last[b], right[b]) for b in mixed]
    # The docstring says .90 and .86. The standard error over problems is about .013: four of them.
    assert abs(np.mean(inside) - 0.90) < 0.05
    assert abs(auc(last.ravel(), right.ravel()) - 0.86) < 0.05
    assert 0.2 < share.mean() < 0.6 and right.any(axis=1).mean() > 0.9


@pytest.mark.slow
def test_the_bonus_misleads_best_of_n(key):
    suite = problems("validation", 120, seed=0)
    shares = []
    for bonus in (0.0, 2.5):
        _, last, _, right = pool(key, suite, 64, DialledReward(hack_bonus=bonus))
        shares.append(np.take_along_axis(right, last.argmax(axis=1)[:, None], axis=1).mean())
    assert shares[1] < shares[0] - 0.1  # the gate of the suite


@pytest.mark.slow
def test_stored_strengths_have_the_best_log_score(key):
    suite = problems("validation", 300, seed=1)
    grid = {
        "odds": np.arange(0.2, 1.2, 0.1),
        "emission": np.arange(0.5, 3.5, 0.25),
        "value": np.arange(2.0, 13.0),
    }
    scores = {target: np.zeros(len(strengths)) for target, strengths in grid.items()}
    stored = dict.fromkeys(grid, 0.0)
    for seed, key_pool in enumerate(jax.random.split(key, 3)):
        reward = DialledReward(seed=seed)
        log_odds, _, _, right = pool(key_pool, suite, 256, reward, NoisyExecutor(seed=seed))
        for target in FORMULAS:
            potential = np.asarray(log_potentials(target, jnp.asarray(log_odds)))
            scores[target] += [log_score(s * potential, right) for s in grid[target]]
            stored[target] += log_score(dict(reward.strengths)[target] * potential, right)
    for target in FORMULAS:
        assert stored[target] / 3 > scores[target].max() / 3 - 0.01, target


def log_score(log_weights, right):
    """Mean log probability of the right answer, with one vote spread over the 19 answers."""
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    share = (weights * right).sum(axis=1) / weights.sum(axis=1)
    num = right.shape[1]
    return np.mean(np.log((share * num + 1 / 19) / (num + 1)))
