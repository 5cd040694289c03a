"""A pack fits a model whole, or is refused."""
import logging

from mmengine.runner import checkpoint as stock
from torch import Tensor, nn

from mmspt.safetensors_files import PACK_CARD

stock_load_state_dict = stock.load_state_dict


def load_state_dict(module: nn.Module, state_dict: dict[str, Tensor], strict: bool = False,
                    logger: logging.Logger | None = None) -> None:
    """MMEngine's, which only logs a weight that does not fit; what comes from a pack is refused then.

    Raises:
        ValueError: The model has no such weight as the pack's, or one of another shape.
    """
    if PACK_CARD in (getattr(state_dict, '_metadata', None) or {}).get('', {}):
        own = {name.removeprefix('module.'): tuple(value.shape) for name, value in module.named_parameters()}
        for name, value in state_dict.items():
            if name.startswith('head.') and own.get(name) != tuple(value.shape):
                raise ValueError(f"a pack must fit the model's head, but its {name} is {tuple(value.shape)}, and the "
                                 f"model's is {own.get(name, 'none')}: set model.head to the pack's classes "
                                 f"(num_classes={len(value)}), or start other prompts from the pack with "
                                 "dict(type='mmspt.FileInit', path=...)")
    stock_load_state_dict(module, state_dict, strict, logger)
