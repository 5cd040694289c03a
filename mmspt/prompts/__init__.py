from .initializers import (
    FileInit,
    KMeansInit,
    MaxPoolInit,
    MeanPoolInit,
    NormalInit,
    PromptInitializer,
    RandomSampleInit,
    TokenInitializer,
    UniformInit,
)
from .vipamin import VIPAMINInit
from .whitening import DrawnInit, WhitenedInit

__all__ = [
    'DrawnInit', 'FileInit', 'KMeansInit', 'MaxPoolInit', 'MeanPoolInit', 'NormalInit', 'PromptInitializer',
    'RandomSampleInit', 'TokenInitializer', 'UniformInit', 'VIPAMINInit', 'WhitenedInit'
]
