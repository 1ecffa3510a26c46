"""Search methods: the same `infer`, but a target that is named a heuristic."""

from jurax.inference.search.beam_search import BeamSearch as BeamSearch
from jurax.inference.search.best_of_n import BestOfN as BestOfN
from jurax.inference.search.self_consistency import SelfConsistency as SelfConsistency
