"""Parameter groups of what trains, without a warning for each frozen weight."""
from torch import nn

from mmengine.optim import DefaultOptimWrapperConstructor
from mmspt.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOnlyOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, ``paramwise_cfg`` and all, that passes by modules with nothing to train.

    The default gives the same groups and logs a warning for each of a ViT-B's 150 frozen weights.
    """

    def add_params(self, params: list[dict], module: nn.Module, *args, **kwargs) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, *args, **kwargs)
