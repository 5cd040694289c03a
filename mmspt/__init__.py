"""Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain."""
from . import repairs, zoo
from .version import __version__

repairs.apply()
zoo.register()

__all__ = ['__version__']
