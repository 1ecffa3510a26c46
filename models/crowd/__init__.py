"""Models of crowds: answers in; right answers, tempting wrong ones and reliabilities out."""

from jurax.models.crowd.agreement import krippendorff_alpha as krippendorff_alpha
from jurax.models.crowd.answers import Answers as Answers
from jurax.models.crowd.calibration import Calibration as Calibration
from jurax.models.crowd.calibration import calibration as calibration
from jurax.models.crowd.comparison import held_out as held_out
from jurax.models.crowd.dawid_skene import DawidSkene as DawidSkene
from jurax.models.crowd.glad import GLAD as GLAD
from jurax.models.crowd.kos import KOS as KOS
from jurax.models.crowd.m_msr import MMSR as MMSR
from jurax.models.crowd.mace import MACE as MACE
from jurax.models.crowd.majority import MajorityVote as MajorityVote
from jurax.models.crowd.majority import Wawa as Wawa
from jurax.models.crowd.majority import ZeroBasedSkill as ZeroBasedSkill
from jurax.models.crowd.next_question import information_gain as information_gain
from jurax.models.crowd.next_question import next_questions as next_questions
from jurax.models.crowd.next_question import settled as settled
from jurax.models.crowd.one_coin import OneCoinDawidSkene as OneCoinDawidSkene
from jurax.models.crowd.predictive_check import predictive_check as predictive_check
from jurax.models.crowd.soft_labels import soft_labels as soft_labels
from jurax.models.crowd.top_two import TopTwo as TopTwo
from jurax.models.crowd.top_two_posterior import TaskPosterior as TaskPosterior
from jurax.models.crowd.top_two_posterior import read_tasks as read_tasks
from jurax.models.crowd.update import update as update
