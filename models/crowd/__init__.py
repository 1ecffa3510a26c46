"""Models of crowds: answers in; right answers, tempting wrong ones and reliabilities out."""

from jurax.models.crowd.answers import Answers as Answers
from jurax.models.crowd.dawid_skene import DawidSkene as DawidSkene
from jurax.models.crowd.dawid_skene import OneCoinDawidSkene as OneCoinDawidSkene
from jurax.models.crowd.majority import MajorityVote as MajorityVote
from jurax.models.crowd.majority import Wawa as Wawa
from jurax.models.crowd.top_two import TopTwo as TopTwo
from jurax.models.crowd.top_two_posterior import TaskPosterior as TaskPosterior
from jurax.models.crowd.top_two_posterior import read_tasks as read_tasks
