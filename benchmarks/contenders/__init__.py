"""The contenders of benchmarks/kernels.py: one library per file, each by its own documentation.

A contender is a function `prepare(case, num_particles, threshold)` that returns `run(seed)`, a
filter that is ready to be timed: `run` blocks until the log-evidence is known and returns it as a
float. `threshold` is 1.0 (resample at every step) or 0.5 (when ESS < N / 2); None is returned for a
mode that a library does not have. Everybody resamples systematically.
"""
