"""Parameter groups of the trained parameters, without a warning for each frozen weight."""
import math
from numbers import Real
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmspt.registry import OPTIM_WRAPPER_CONSTRUCTORS

HEAD = 'head.'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOnlyOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with its ``paramwise_cfg``, that skips modules without trained parameters.

    The default builds the same groups and logs a warning for each of a ViT-B's 150 frozen weights. Here two warnings
    remain, for the CLS token and the position embedding, which belong to the same module as the prompts.

    Args:
        optim_wrapper_cfg (dict): As in MMEngine.
        paramwise_cfg (dict | None): As in MMEngine, and ``head_decay`` (float | None): the weight decay of the
            parameters ``head.*`` of more than one dimension, whatever ``optimizer.weight_decay`` is; None or absent
            leaves them to the other rules. ``custom_keys`` may set their rate beside it, not their decay.
            Defaults to None.

    Raises:
        ValueError: ``head_decay`` is no finite number of at least 0, one of ``custom_keys`` sets the same decay, or
            the model has no such parameter.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        decay = self.paramwise_cfg.get('head_decay')
        if decay is not None and (isinstance(decay, bool) or not isinstance(decay, Real)
                                  or not 0 <= float(decay) < math.inf):
            raise ValueError("paramwise_cfg.head_decay must be a finite number of at least 0 (the weight decay of the "
                             f"head's weights) or None, got {decay!r}: set 0.5 as for MAE on CUB, or None for "
                             'optimizer.weight_decay')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper; its groups are plain dicts, since torch.compile cannot trace MMEngine's ConfigDict."""
        wrapper = super().__call__(model)
        wrapper.optimizer.param_groups[:] = [dict(group) for group in wrapper.optimizer.param_groups]
        if self.paramwise_cfg.get('head_decay') is not None:
            self._set_head_decay(wrapper, getattr(model, 'module', model))
        return wrapper

    def _set_head_decay(self, wrapper: OptimWrapper, model: nn.Module) -> None:
        decay = self.paramwise_cfg['head_decay']
        names = {id(p): name for name, p in model.named_parameters() if name.startswith(HEAD) and p.ndim > 1}
        if not names:
            raise ValueError(f'paramwise_cfg.head_decay={decay!r} needs a parameter {HEAD}* of more than one '
                             f'dimension, {type(model).__name__} has none: set head_decay=None')
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        for group in wrapper.optimizer.param_groups:
            name = names.get(id(group['params'][0]))  # a group holds one parameter where paramwise_cfg is given
            if name is None:
                continue
            # MMEngine's choice: of the keys that the name contains the longest, then the first by the alphabet
            key = min((key for key in custom_keys if key in name), key=lambda key: (-len(key), key), default=None)
            if key is not None and not {'decay_mult', 'weight_decay'}.isdisjoint(custom_keys[key]):
                raise ValueError(f"the decay of {name} must be set once, got head_decay={decay!r} and "
                                 f'custom_keys[{key!r}]={dict(custom_keys[key])}: remove one of them, or set '
                                 'head_decay=None')
            group['weight_decay'] = decay

    def add_params(self, params: list[dict], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, *args, **kwargs)
