"""Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain."""
from . import repairs
from .version import __version__

repairs.apply()

__all__ = ['__version__']
