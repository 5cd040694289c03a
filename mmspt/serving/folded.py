"""A tuned model as a plain network from pixels to logits, its prompts folded into constants."""
import copy
from typing import TypeVar

import torch
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmspt.engine.model import check_linear_classifier
from mmspt.models.backbones.frozen_vit import CLS_AND_MEAN
from mmspt.models.backbones.prompted_vit import BlockPrompts

Module = TypeVar('Module', bound=nn.Module)
OUT_TYPES = ('cls_token', 'avg_featmap', CLS_AND_MEAN)


def share(module: Module) -> Module:
    """Copy a module that shares its weights, without gradients; mode, device and data type of either can be set alone.
    """
    memo: dict[int, Tensor] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    memo.update((id(b), b.detach()) for b in module.buffers())
    return copy.deepcopy(module, memo)


class FoldedModel(nn.Module):
    r"""A tuned classifier without prompts: constant keys and values, or constant tokens, stand in their place.

    Block i of a deep model reads its prompts P through ``K = LN(P) W_k, V = LN(P) W_v`` alone, which do not depend
    on the image and are computed once, here. Where the prompts' outputs are read (all blocks of a shallow model, the
    last one of a deep model that pools them), prompts stay tokens. Normalization of pixels is part of the network. It
    is always in eval mode.

    Weights lie in the memory of the given model, which is not changed; prompts that change later are not followed.

    Args:
        model (ImageClassifier): Of a PromptedViT (:data:`OUT_TYPES`) and a LinearClsHead, in float32.
        size (tuple[int, int] | None): (height, width) of the images; None is the backbone's ``img_size``.

    Attributes:
        image_shape (tuple[int, int, int]): Channels, height and width of the images.
        num_classes (int): C.

    Raises:
        ValueError: It has a part that cannot be folded.
    """
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: ImageClassifier, size: tuple[int, int] | None = None) -> None:
        check_linear_classifier(model)
        if model.backbone.out_type not in OUT_TYPES:
            raise ValueError(f'out_type must be one of {OUT_TYPES}, which a linear head reads, got '
                             f'{model.backbone.out_type!r}: set model.backbone.out_type')
        if model.data_preprocessor.pad_size_divisor != 1:
            raise ValueError('images must go in as they are, got pad_size_divisor='
                             f'{model.data_preprocessor.pad_size_divisor}: set data_preprocessor.pad_size_divisor=1')
        others = sorted({str(p.dtype) for p in model.parameters()} - {'torch.float32'})
        if others:
            raise ValueError(f'weights must be float32, got {", ".join(others)} among them: call model.float()')
        super().__init__()
        backbone = share(model.backbone).eval()
        backbone.concatenate, backbone.shortened = False, backbone.num_prompts > 0  # the same numbers, sooner
        prompts = [BlockPrompts()] * backbone.num_layers
        if backbone.prompts is not None:
            with torch.no_grad():
                prompts = backbone.prepare(backbone.prompts())
            backbone.prompts = None
        constants = {f'{name}_{i}': value for i, block in enumerate(prompts) for name, value in block._asdict().items()}
        preprocessor = model.data_preprocessor
        if preprocessor._enable_normalize:
            constants.update(pixel_mean=preprocessor.mean, pixel_std=preprocessor.std)
        for name, value in constants.items():
            if value is not None:  # torch.export miscounts buffers that are None
                self.register_buffer(name, value.detach().clone())  # a saved view takes its whole storage along
        self.backbone = backbone
        self.head = share(model.head.fc)
        channels = backbone.patch_embed.projection.in_channels
        self.flips = channels == 3 and not preprocessor.to_rgb  # MMPretrain reads images as BGR
        height, width = size or backbone.img_size
        self.image_shape = (channels, height, width)
        self.num_classes = self.head.out_features
        super().train(False)

    def train(self, mode: bool = True) -> 'FoldedModel':
        """Stay in eval mode."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images (Tensor): (B, 3, H, W), float32, RGB, 0 to 255; (B, 1, H, W) if the model has one channel.

        Returns:
            Tensor: Logits, (B, C), float32.
        """
        if self.flips:
            images = images.flip(1)
        if hasattr(self, 'pixel_mean'):
            images = (images - self.pixel_mean) / self.pixel_std
        prompts = [BlockPrompts(*(getattr(self, f'{name}_{i}', None) for name in BlockPrompts._fields))
                   for i in range(self.backbone.num_layers)]
        return self.head(self.backbone(images, prompts)[-1])
