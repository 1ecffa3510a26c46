"""Tables of scores: what is read, what is masked, and what is refused with a reason."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from jurax.models.judging import Scores
from jurax.models.judging.judge_cards import score_cards
from jurax.models.judging.judge_law import rows_of


def table(num_items: int = 3) -> pd.DataFrame:
    rows = [
        (item, candidate, judge, (item + len(candidate) + len(judge)) % 3 + 1)
        for item, candidate, judge in product(range(num_items), ["a", "bb"], ["j", "kk"])
    ]
    return pd.DataFrame(rows, columns=["item", "candidate", "judge", "score"])


def changed(column: str, row: int, value) -> pd.DataFrame:
    frame = table().astype({column: object})
    frame.loc[row, column] = value
    return frame


def gold(**columns) -> pd.DataFrame:
    return pd.DataFrame({"item": [0], "candidate": ["a"], "gold": [1], **columns})


BAD = {
    "no table": (dict(table=7), TypeError, "must be a pandas DataFrame"),
    "no file": (dict(table="absent.csv"), ValueError, "there is no file absent.csv"),
    "no rows": (dict(table=table().iloc[:0]), ValueError, "holds no scores"),
    "no column": (dict(table=table().drop(columns="judge")), ValueError, "lacks the column"),
    "another name": (
        dict(table=table().rename(columns={"candidate": "model"})),
        ValueError,
        "rename 'model' to 'candidate'",
    ),
    "a column twice": (
        dict(table=pd.concat([table(), table()[["judge"]]], axis=1)),
        ValueError,
        "twice",
    ),
    "no judge named": (dict(table=changed("judge", 2, None)), ValueError, "no judge.*row 2"),
    "no item named": (dict(table=changed("item", 1, None)), ValueError, "no item.*row 1"),
    "unhashable names": (
        dict(table=changed("candidate", 0, ["a"])),
        TypeError,
        "must be hashable",
    ),
    "repeated": (
        dict(table=pd.concat([table(), table().iloc[:1]])),
        ValueError,
        "repeat item, candidate and judge",
    ),
    "one candidate": (
        dict(table=table().query("candidate == 'a'")),
        ValueError,
        "only the candidate 'a'",
    ),
    "one level": (dict(table=table().assign(score=4)), ValueError, "two levels are needed"),
    "averages": (
        dict(table=table(20).assign(score=np.linspace(0, 1, 80))),
        ValueError,
        "continuous scale",
    ),
    "no level": (dict(table=table(), levels=[1, 2]), ValueError, "are no levels.*3"),
    "levels twice": (dict(table=table(), levels=[1, 2, 3, 3]), ValueError, "twice"),
    "levels reversed": (dict(table=table(), levels=[3, 2, 1]), ValueError, "worst to best"),
    "names of levels": (
        dict(table=table().assign(score="fine"), levels=["bad", "good"]),
        ValueError,
        "are no levels.*'fine'",
    ),
    "only words": (dict(table=table().assign(score="fine")), ValueError, "pass levels"),
    "a strange collapse": (dict(table=table(), collapse="half"), ValueError, "'binary' or"),
    "an empty half": (dict(table=table(), collapse=9), ValueError, "must lie above"),
    "a strange judge in the map": (
        dict(table=table(), self_map={"x": "a"}),
        ValueError,
        "'x', which is no judge",
    ),
    "a strange candidate in the map": (
        dict(table=table(), self_map={"j": "x"}),
        ValueError,
        "'x', which is no candidate",
    ),
    "a candidate without scores": (
        dict(table=table().query("judge == 'j'"), self_map={"j": "a"}),
        ValueError,
        "no usable score for 'a'",
    ),
    "gold without a column": (
        dict(table=table(), gold=pd.DataFrame({"item": [0]})),
        ValueError,
        "lacks the column",
    ),
    "gold of nobody": (
        dict(table=table(), gold=gold(candidate=["x"])),
        ValueError,
        "'x', who has no scores",
    ),
    "gold of no level": (dict(table=table(), gold=gold(gold=[9])), ValueError, "no level"),
    "gold twice": (
        dict(table=table(), gold=pd.concat([gold(), gold(gold=[2])])),
        ValueError,
        "two scores",
    ),
    "strange repeats": (dict(table=table(), repeats="mean"), ValueError, "repeats must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_with_a_reason(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=f"(?s){message}"):
        Scores(**arguments)


def test_failures_are_missing_and_their_rate_is_shown() -> None:
    frame = changed("score", 0, "I cannot say")
    frame.loc[4, "score"] = np.nan
    with pytest.warns(UserWarning, match="many scores are missing or unreadable: j 33%"):
        scores = Scores(frame)
    assert len(scores) == 10 and scores.failure_rate.to_dict() == {"j": 2 / 6, "kk": 0}


def test_levels_between_are_filled_and_names_keep_their_order() -> None:
    frame = table().assign(score=np.where(table()["score"] > 1, 5, 1))
    assert list(Scores(frame).levels) == [1, 2, 3, 4, 5]
    named = table().assign(score=np.where(table()["score"] > 1, "good", "bad"))
    scores = Scores(named, levels=["bad", "fine", "good"])
    assert list(scores.values) == [1, 2, 3]
    assert set(scores.level) == {0, 2}


def test_collapsed_levels() -> None:
    scores, binary = Scores(table()), Scores(table(), collapse="binary")
    assert list(binary.levels) == [0, 1]
    assert np.array_equal(binary.level, scores.level >= 2)
    assert np.array_equal(Scores(table(), collapse=2).level, scores.level >= 1)


def test_self_judging_is_masked() -> None:
    scores = Scores(table(), self_map={"j": "a"})
    assert scores.num_masked == 3 and len(scores) == 9
    assert scores.counts()[0, 0].sum() == 0 and scores.counts()[1, 0].sum() == 3
    assert len(Scores(table(), self_map={"j": "a"}, self_judging="keep")) == 12


def test_gold_may_belong_to_answers_without_scores() -> None:
    known = pd.DataFrame({"item": [0, 99], "candidate": ["a", "bb"], "gold": [2, 3]})
    scores = Scores(table(), gold=known)
    assert len(scores.gold) == 7 and sorted(scores.gold[scores.gold >= 0]) == [1, 2]
    inside = table().assign(gold=np.where(table()["item"] == 0, 1.0, np.nan))
    assert (Scores(inside).gold >= 0).sum() == 2


def test_gold_that_fits_no_answer_is_reported() -> None:
    known = pd.DataFrame({"item": ["0"], "candidate": ["a"], "gold": [2]})
    with pytest.warns(UserWarning, match="no gold belongs to an answer.*'0'"):
        Scores(table(), gold=known)


def test_candidates_without_a_common_judge_are_named() -> None:
    frame = table()
    apart = frame[(frame["candidate"] == "a") == (frame["judge"] == "j")]
    with pytest.warns(UserWarning, match="2 groups that share no judge: .*'a'.*'bb'"):
        assert len(set(Scores(apart).components)) == 2


def test_rows_count_equal_answers_once() -> None:
    rng = np.random.default_rng(0)
    frame = table(50).assign(score=rng.integers(1, 3, 200))
    scores = Scores(frame)
    rows = rows_of(scores)
    assert float(rows.count.sum()) == 100 and int((rows.count > 0).sum()) <= 8
    counts = np.asarray((rows.hot * rows.count[..., None]).sum(axis=1))
    assert np.array_equal(counts.reshape(2, 2, 2).transpose(1, 0, 2), scores.counts())


@pytest.mark.parametrize("self_judging", ["mask", "keep"])
def test_self_preference_counts_masked_scores(self_judging: str) -> None:
    """The judge gives everybody .5 more than the other does, and itself one more on top."""
    rows = []
    for item, candidate in product(range(4), ["a", "b", "c"]):
        base = item % 3 + 1
        rows.append((item, candidate, "j", base + (item % 2) + (candidate == "a")))
        rows.append((item, candidate, "k", base))
    frame = pd.DataFrame(rows, columns=["item", "candidate", "judge", "score"])
    scores = Scores(frame, self_map={"j": "a"}, self_judging=self_judging)
    cards = score_cards(scores).set_index("judge")
    assert cards.loc["j", "self_preference"] == 1 and np.isnan(cards.loc["k", "self_preference"])
    assert scores.num_masked == (4 if self_judging == "mask" else 0)
    assert len(scores.own.pair) == 4
