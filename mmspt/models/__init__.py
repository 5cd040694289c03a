from .backbones import GatedPromptedViT, PromptedViT
from .methods import DeepPrompts, GatedPrompts, PromptMethod, ShallowPrompts

__all__ = ['DeepPrompts', 'GatedPromptedViT', 'GatedPrompts', 'PromptMethod', 'PromptedViT', 'ShallowPrompts']
