"""Jurax: weighted sequential programs and composable kernels, in JAX.

A reasoning language model, a crowd and a panel of judges are the same kind of object: a weighted
sequential program. Its posterior is computed by kernels that compose.

- `jurax.ppl`: the language (processes, NumPyro programs, populations, posteriors, exact laws).
- `jurax.inference`: kernels and the one entry point, `infer`.
- `jurax.models`: state-space models, language models, crowds, judges.

Importing changes no JAX setting and allocates nothing.
"""

__version__ = "0.1.0"
