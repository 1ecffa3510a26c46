"""Judges: scores or preferences in; rankings with intervals, and what would change them, out."""

from jurax.models.judging.bradley_terry import BradleyTerry as BradleyTerry
from jurax.models.judging.preferences import Preferences as Preferences
from jurax.models.judging.ranking import Ranking as Ranking
from jurax.models.judging.scores import Scores as Scores
from jurax.models.judging.simplex import Simplex as Simplex
