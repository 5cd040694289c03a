from .prompt_init_hook import PromptInitHook
from .result_hook import ResultHook

__all__ = ['PromptInitHook', 'ResultHook']
