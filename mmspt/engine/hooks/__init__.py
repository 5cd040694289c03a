from .prompt_init_hook import PromptInitHook

__all__ = ['PromptInitHook']
