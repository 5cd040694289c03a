from .prompt_init_hook import PromptInitHook
from .prompt_nmi_hook import PromptNMIHook
from .result_hook import ResultHook

__all__ = ['PromptInitHook', 'PromptNMIHook', 'ResultHook']
