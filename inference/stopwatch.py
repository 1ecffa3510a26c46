"""Wall-clock seconds of a block of JAX code, with the part that went into compiling told apart."""

import time

from jax import monitoring

# Tracing, lowering and compiling each report how long they took when they are done.
COMPILE_EVENTS = "/jax/core/compile/"


class Stopwatch:
    """Context manager that counts seconds; it may be entered again and adds up.

    Attributes:
        seconds: time inside the blocks, without compilation.
        compile_seconds: time in which JAX traced, lowered or compiled. Stages that contain one
            another count once. Nothing but this process's own compilations is seen.

    Example:
        >>> import jax
        >>> watch = Stopwatch()
        >>> with watch:
        ...     _ = jax.jit(lambda x: x + 1)(1.0)
        >>> watch.compile_seconds > 0
        True
    """

    def __init__(self):
        self.seconds = 0.0
        self.compile_seconds = 0.0
        self._intervals: list[tuple[float, float]] = []
        self._begin = 0.0

    def __enter__(self) -> "Stopwatch":
        self._intervals = []
        self._begin = time.perf_counter()
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error) -> None:
        elapsed = time.perf_counter() - self._begin
        monitoring.unregister_event_duration_listener(self._listen)
        compiling = min(length_of_union(self._intervals), elapsed)
        self.compile_seconds += compiling
        self.seconds += elapsed - compiling

    def _listen(self, event: str, duration: float, **details) -> None:
        del details
        if event.startswith(COMPILE_EVENTS):
            now = time.perf_counter()
            self._intervals.append((max(now - duration, self._begin), now))


def length_of_union(intervals: list[tuple[float, float]]) -> float:
    """Total length covered by intervals (begin, end).

    Example:
        >>> length_of_union([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
        4.0
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
