"""Build the model or a data set of a config, and load a checkpoint into the model."""
import copy
from pickle import UnpicklingError
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry
from mmengine.runner import load_checkpoint
from torch import nn

from .model import find_prompted_vit


def build_model(cfg: Config) -> Any:
    """Build a config's model with its data preprocessor; a backbone without ``arch`` reads its checkpoint.
    ValueError if it cannot be built."""
    model = copy.deepcopy(cfg.get('model') or {})
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor', {}))
    return _build(MODELS, model, cfg, 'model')


def build_dataset(cfg: Config, field: str) -> Any:
    """Build the data set of a loader of a config ('train_dataloader', ...). ValueError if it cannot be built."""
    return _build(DATASETS, copy.deepcopy(cfg[field].dataset), cfg, field)


def load_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build a config's model and load a checkpoint of its training.

    Args:
        cfg (Config): As read from a file.
        checkpoint (str): With all weights, or the tuned ones, to which those of the model's ``init_cfg`` are added.

    Returns:
        tuple[nn.Module, dict]: The model on the CPU, in eval mode, and the checkpoint's ``meta``.

    Raises:
        OSError: The checkpoint cannot be read, or the one of ``init_cfg``.
        ValueError: The model cannot be built, or the checkpoint does not fill it.
    """
    model = build_model(cfg)
    try:
        content = load_checkpoint(model, checkpoint, map_location='cpu', strict=True, logger='silent')
    except (UnpicklingError, RuntimeError, ValueError) as error:
        raise ValueError(f"a checkpoint must fit its config, but '{checkpoint}' does not fit '{cfg.filename}' "
                         f"({error}): name one of this config's training") from error
    backbone = find_prompted_vit(model)
    if backbone is not None and backbone.not_loaded:
        raise ValueError(f"a checkpoint must hold the model's prompts, but '{checkpoint}' has no "
                         f'{", ".join(backbone.not_loaded)}: name one of a training with this config, or set '
                         'model.backbone to what was trained (num_prompts=0 if there were no prompts)')
    return model.eval(), content.get('meta') or {}


def _build(registry: Registry, part: dict, cfg: Config, name: str) -> Any:
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            return registry.build(part)
    except (AssertionError, AttributeError, ImportError, KeyError, TypeError) as error:
        raise ValueError(f"the config must say how to build its {name}, but '{cfg.filename}' does not "
                         f'({type(error).__name__}: {error}): install the packages that it needs, or name the config '
                         'of the training') from error
