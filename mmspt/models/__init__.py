from .backbones import PromptedViT

__all__ = ['PromptedViT']
