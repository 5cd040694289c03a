"""Prompt methods: what is tuned, and how it becomes what the blocks read. One class a file."""
from .bilinear_prompts import BilinearPrompts, DeepBilinearPrompts, ShallowBilinearPrompts
from .gated_prompts import GatedPrompts
from .prompt_method import FoldedPrompts, PromptMethod
from .token_prompts import DeepPrompts, ShallowPrompts

__all__ = [
    'BilinearPrompts', 'DeepBilinearPrompts', 'DeepPrompts', 'FoldedPrompts', 'GatedPrompts', 'PromptMethod',
    'ShallowBilinearPrompts', 'ShallowPrompts'
]
