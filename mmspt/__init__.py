"""Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain."""
from typing import TYPE_CHECKING, Any

from .quiet import without_warning

# of an operator that nothing here uses; mmcv-lite says it at the first import
with without_warning('Fail to import ``MultiScaleDeformableAttention``'):
    import mmcv.cnn.bricks.transformer  # noqa: F401

from . import files, zoo  # noqa: F401  (files adds the file backend 'mmspt')
from .checkpoint_loaders import register_schemes
from .safe_globals import add_safe_globals
from .version import __version__

if TYPE_CHECKING:
    from .serving.predictor import MultiTaskPredictor

add_safe_globals()
register_schemes()
zoo.register()

__all__ = ['MultiTaskPredictor', '__version__']


def __getattr__(name: str) -> Any:
    """Import the models when they are asked for, and not with every ``import mmspt``."""
    if name == 'MultiTaskPredictor':
        from .serving.predictor import MultiTaskPredictor
        return MultiTaskPredictor
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
