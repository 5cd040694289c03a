from .initializers import (
                           FileInit,
                           KMeansInit,
                           MaxPoolInit,
                           MeanPoolInit,
                           NormalInit,
                           PromptInitializer,
                           RandomSampleInit,
                           UniformInit,
)

__all__ = [
    'FileInit', 'KMeansInit', 'MaxPoolInit', 'MeanPoolInit', 'NormalInit', 'PromptInitializer', 'RandomSampleInit',
    'UniformInit'
]
