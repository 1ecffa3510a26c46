"""Language models under rewards: `Reasoning`, its models and rewards, and the RegChain suite."""

from jurax.models.language import regchain as regchain
from jurax.models.language.decoder import TransformerModel as TransformerModel
from jurax.models.language.default import load_default as load_default
from jurax.models.language.dialled_reward import DialledReward as DialledReward
from jurax.models.language.likelihood_reward import LikelihoodReward as LikelihoodReward
from jurax.models.language.model import AbstractLanguageModel as AbstractLanguageModel
from jurax.models.language.model import AbstractReward as AbstractReward
from jurax.models.language.noisy_executor import NoisyExecutor as NoisyExecutor
from jurax.models.language.reasoning import Reasoning as Reasoning
