from .prompt_cache import PromptCache
from .prompted_block import PromptedBlock

__all__ = ['PromptCache', 'PromptedBlock']
