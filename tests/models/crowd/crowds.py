"""Crowds drawn from the models."""

import numpy as np
import pandas as pd


def draw_top_two(rng, num_tasks: int, num_workers: int, num_classes: int, share: float, easy=0.5):
    """A table of the top-two model, and its truth: (table, g, h, q, p)."""
    first = rng.integers(num_classes, size=num_tasks)
    second = (first + rng.integers(1, num_classes, size=num_tasks)) % num_classes
    q = rng.uniform(easy, 1, size=num_tasks)
    p = rng.uniform(0.1, 0.95, size=num_workers)
    asked = rng.random((num_tasks, num_workers)) < share
    informed = rng.random(asked.shape) < p[None, :]
    right = rng.random(asked.shape) < q[:, None]
    guess = rng.integers(num_classes, size=asked.shape)
    label = np.where(informed, np.where(right, first[:, None], second[:, None]), guess)
    task, worker = np.nonzero(asked)
    table = pd.DataFrame({"task": task, "worker": worker, "label": label[task, worker]})
    return table, first, second, q, p
