"""Parameter groups of the trained parameters, without a warning for each frozen weight."""
import math
from numbers import Real
from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmspt.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .paramwise import check_paramwise

HEAD = 'head.'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOnlyOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with its ``paramwise_cfg``, that skips modules without trained parameters.

    The default builds the same groups and logs a warning for each of a ViT-B's 150 frozen weights. Here two warnings
    remain, for the CLS token and the position embedding, which stand beside modules that train.

    Args:
        optim_wrapper_cfg (dict): As in MMEngine.
        paramwise_cfg (dict | None): As in MMEngine, and ``head_decay`` (float | None): the weight decay of the
            parameters ``head.*`` of more than one dimension, whatever ``optimizer.weight_decay`` and ``custom_keys``
            are; None or absent leaves them to these. Defaults to None.

    Raises:
        ValueError: ``head_decay`` is no finite number of at least 0, or the model has no such parameter, or
            ``paramwise_cfg`` has an unknown option.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        check_paramwise(dict(constructor=type(self), paramwise_cfg=self.paramwise_cfg))
        decay = self.paramwise_cfg.get('head_decay')
        if decay is not None and not (isinstance(decay, Real) and 0 <= float(decay) < math.inf):
            raise ValueError("paramwise_cfg.head_decay must be a finite number of at least 0 (the weight decay of the "
                             f"head's weights) or None, got {decay!r}: set 0.5 as for MAE on CUB, or None for "
                             'optimizer.weight_decay')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper; its groups are plain dicts, since torch.compile cannot trace MMEngine's ConfigDict."""
        wrapper = super().__call__(model)
        wrapper.optimizer.param_groups[:] = [dict(group) for group in wrapper.optimizer.param_groups]
        if self.paramwise_cfg.get('head_decay') is not None:
            self._set_head_decay(wrapper, getattr(model, 'module', model))
        names = [f'.{name}' for name, _ in getattr(model, 'module', model).named_parameters()]
        idle = [key for key in self.paramwise_cfg.get('custom_keys') or {} if not any(key in name for name in names)]
        if idle:
            MMLogger.get_current_instance().warning(
                f'No parameter has {", ".join(map(repr, idle))} in its name: these of paramwise_cfg.custom_keys do '
                'nothing')
        return wrapper

    def _set_head_decay(self, wrapper: OptimWrapper, model: nn.Module) -> None:
        weights = {id(p) for name, p in model.named_parameters() if name.startswith(HEAD) and p.ndim > 1}
        groups = [group for group in wrapper.optimizer.param_groups if id(group['params'][0]) in weights]
        if not groups and not hasattr(model, 'backbone'):  # the stand-in of MMPretrain's vis_scheduler.py
            MMLogger.get_current_instance().warning(
                f'paramwise_cfg.head_decay does nothing: {type(model).__name__} has neither backbone nor head')
            return
        if not groups:
            raise ValueError(f'paramwise_cfg.head_decay needs a parameter {HEAD}* of more than one dimension, '
                             f'{type(model).__name__} has none: set head_decay=None')
        for group in groups:  # a group holds one parameter where paramwise_cfg is given
            group['weight_decay'] = self.paramwise_cfg['head_decay']

    def add_params(self, params: list[dict], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, *args, **kwargs)
