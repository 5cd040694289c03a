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

__all__ = [
    'FileInit', 'KMeansInit', 'MaxPoolInit', 'MeanPoolInit', 'NormalInit', 'PromptInitializer', 'RandomSampleInit',
    'TokenInitializer', 'UniformInit', 'VIPAMINInit'
]
