from .amp_optim_wrapper import AmpOptimWrapper
from .trainable_only_constructor import TrainableOnlyOptimWrapperConstructor

__all__ = ['AmpOptimWrapper', 'TrainableOnlyOptimWrapperConstructor']
