"""Parameter groups of what trains, without a warning for each frozen weight."""
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmspt.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOnlyOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, ``paramwise_cfg`` and all, that passes by modules with nothing to train.

    The default gives the same groups and logs a warning for each of a ViT-B's 150 frozen weights; here two remain, for
    the CLS token and the position embedding, which stand beside the prompts.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper; its groups are plain dicts, since torch.compile stumbles over MMEngine's ConfigDict."""
        wrapper = super().__call__(model)
        wrapper.optimizer.param_groups[:] = [dict(group) for group in wrapper.optimizer.param_groups]
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, *args, **kwargs)
