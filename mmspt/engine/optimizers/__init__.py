from .amp_optim_wrapper import AmpOptimWrapper, warn_of_slow_bfloat16
from .trainable_only_constructor import TrainableOnlyOptimWrapperConstructor

__all__ = ['AmpOptimWrapper', 'TrainableOnlyOptimWrapperConstructor', 'warn_of_slow_bfloat16']
