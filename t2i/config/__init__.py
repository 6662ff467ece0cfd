"""One frozen dataclass per flow: names, defaults, bounds and units of everything a person can set."""

from t2i.config.evaluate import EvaluateConfig
from t2i.config.fields import Config, Option, flag_of, option
from t2i.config.generate import GenerateConfig
from t2i.config.train_methods import TrainConfig

__all__ = ["Config", "EvaluateConfig", "GenerateConfig", "Option", "TrainConfig", "flag_of", "option"]
