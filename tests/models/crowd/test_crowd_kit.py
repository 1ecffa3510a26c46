"""Scripts written for crowd-kit run after a change of the import.

The script runs against ours always, and against crowd-kit 1.4.2 where it is installed (it needs
scikit-learn < 1.6 and pandas < 3, so not beside our other tools). `LABELS` is what crowd-kit's
methods returned for `TABLE`.
"""

import importlib
import importlib.util

import numpy as np
import pandas as pd
import pytest

SCRIPT = """
from {module} import (
    GLAD, MACE, DawidSkene, MajorityVote, OneCoinDawidSkene, Wawa, ZeroBasedSkill
)

answers = pd.DataFrame(TABLE)
models = dict(
    vote=MajorityVote(), wawa=Wawa(), zero=ZeroBasedSkill(n_iter=50, lr_init=0.5),
    matrices=DawidSkene(n_iter=20), coin=OneCoinDawidSkene(n_iter=20, tol=1e-4),
    glad=GLAD(n_iter=20), mace=MACE(n_iter=20, n_restarts=2),
)
labels, probas, skills = {{}}, {{}}, {{}}
for name, model in models.items():
    labels[name] = model.fit_predict(answers)
    probas[name] = model.fit_predict_proba(answers)
    same = model.fit(answers).labels_
    assert same.equals(labels[name])
    if name in ("wawa", "zero", "coin"):
        skills[name] = model.skills_
errors, priors = models["matrices"].errors_, models["matrices"].priors_
abilities, easiness = models["glad"].alphas_, models["glad"].betas_
"""


def table() -> dict:
    """Four classes by name, eight workers, two of them guessers; extra columns are ignored."""
    rng = np.random.default_rng(5)
    names = np.array(["cat", "dog", "fox", "owl"])
    truth = rng.integers(4, size=30)
    task, worker = np.nonzero(rng.random((30, 8)) < 0.9)
    label = np.where(worker < 6, truth[task], rng.integers(4, size=len(task)))
    wrong = rng.random(len(task)) < 0.15
    label = np.where(wrong, (label + 1) % 4, label)
    return {"task": task, "worker": worker, "label": names[label], "time": np.arange(len(task))}


TABLE = table()
LABELS = (
    "fox owl cat owl dog fox fox dog owl cat dog dog fox dog cat cat cat cat cat owl cat fox owl "
    "cat dog dog dog owl cat owl"
)

MODULES = ["jurax.models.crowd", "crowdkit.aggregation"]


@pytest.mark.parametrize("module", MODULES)
def test_the_same_script_runs_against_both(module: str) -> None:
    if importlib.util.find_spec(module.split(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    scope = {"pd": pd, "TABLE": TABLE}
    exec(SCRIPT.format(module=module), scope)
    for name, found in scope["labels"].items():
        assert isinstance(found, pd.Series) and found.index.name == "task", name
        assert " ".join(found.sort_index()) == LABELS, name
        probas = scope["probas"][name]
        assert set(probas.columns) == {"cat", "dog", "fox", "owl"}
        np.testing.assert_allclose(probas.sum(axis=1), 1, rtol=1e-4)
    for skills in scope["skills"].values():
        assert skills.index.name == "worker" and skills.sort_index()[:6].min() > skills[6]
    assert list(scope["errors"].index.names) == ["worker", "label"]
    assert scope["priors"].sum() == pytest.approx(1, rel=1e-4)
    assert len(scope["abilities"]) == 8 and len(scope["easiness"]) == 30
