"""Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain."""
from typing import TYPE_CHECKING, Any

from . import repairs, zoo
from .version import __version__

if TYPE_CHECKING:
    from .serving.predictor import MultiTaskPredictor

repairs.apply()
zoo.register()

__all__ = ['MultiTaskPredictor', '__version__']


def __getattr__(name: str) -> Any:
    """Import the models when they are asked for, and not with every ``import mmspt``."""
    if name == 'MultiTaskPredictor':
        from .serving.predictor import MultiTaskPredictor
        return MultiTaskPredictor
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
