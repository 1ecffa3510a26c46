"""Processes from processes; each says what it changes: potentials, moves, or neither in the end."""

from jurax.ppl.combinators.constrain import Automaton as Automaton
from jurax.ppl.combinators.constrain import constrain as constrain
from jurax.ppl.combinators.propose import Proposal as Proposal
from jurax.ppl.combinators.propose import propose as propose
from jurax.ppl.combinators.temper import temper as temper
from jurax.ppl.combinators.tilt import tilt as tilt
from jurax.ppl.combinators.twist import twist as twist
from jurax.ppl.combinators.wrapper import AbstractWrapper as AbstractWrapper
