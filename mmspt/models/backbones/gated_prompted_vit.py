"""GateVPT under the name that it had in configs of earlier versions."""
from typing import Any

from mmspt.registry import MODELS

from .prompted_vit import PromptedViT


@MODELS.register_module()
class GatedPromptedViT(PromptedViT):
    """:class:`.PromptedViT` with :class:`mmspt.models.methods.GatedPrompts`, for configs of earlier versions.

    Args:
        num_prompts (int): N_p. Defaults to 100.
        gate_start (float): GatedPrompts'. Defaults to -5.
        **kwargs: Those of :class:`.PromptedViT`.
    """

    def __init__(self, *args: Any, num_prompts: int = 100, gate_start: float = -5., **kwargs: Any) -> None:
        method = dict(type='mmspt.GatedPrompts', num_prompts=num_prompts, gate_start=gate_start)
        super().__init__(*args, prompts=method, **kwargs)
