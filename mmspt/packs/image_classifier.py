"""MMPretrain's classifier, which compares the images that it is given with those that a pack was tuned on."""
import inspect
from typing import Any

from mmengine.config import Config
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.models import ImageClassifier as MMPretrainImageClassifier
from torch import Tensor

from mmspt.config import name_classes
from mmspt.models.backbones.frozen_vit import FrozenViT
from mmspt.models.weights.loading import has_sizes
from mmspt.models.weights.normalization import fill_normalization
from mmspt.registry import MODELS


@MODELS.register_module()
class ImageClassifier(MMPretrainImageClassifier):
    """MMPretrain's, which refuses a pack whose preprocessing is another than its own, once for each pack.

    Its own are ``data_preprocessor`` and, of a model that ``get_model`` built, the config's test pipeline.

    Args:
        backbone, neck (dict): MMPretrain's.
        head (dict): Its ``in_channels`` is the backbone's ``feature_dims``, if it is not given and there is no neck.
        **kwargs: Those of :class:`mmpretrain.models.ImageClassifier`; with a backbone that reads its checkpoint,
            ``data_preprocessor`` has the mean and std that its publisher names, if it is given neither.

    Raises:
        ValueError: Another ``in_channels`` without a neck and of one block's outputs; in eval mode, a pack of other
            preprocessing.
    """
    _compared: dict | None = None  # a pack's preprocessing, which is our own

    def __init__(self, backbone: Any, neck: Any = None, head: Any = None, **kwargs: Any) -> None:
        given, backbone = backbone, MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        if isinstance(given, dict) and isinstance(backbone, FrozenViT) and not has_sizes(given.get('arch')) and \
                isinstance(kwargs.get('data_preprocessor', {}), dict | None):
            kwargs['data_preprocessor'] = fill_normalization(
                kwargs.get('data_preprocessor') or {}, given, backbone.embed_dims, hasattr(backbone.pre_norm, 'weight'),
                backbone.patch_embed.projection.in_channels)
        if isinstance(head, dict) and neck is None and hasattr(backbone, 'feature_dims'):
            kind = head.get('type')
            kind = MODELS.get(kind) if isinstance(kind, str) else kind
            if kind is not None and 'in_channels' in inspect.signature(kind).parameters:
                head = {'in_channels': backbone.feature_dims, **head}
                # a head of several blocks' outputs may be wider
                if head['in_channels'] != backbone.feature_dims and len(backbone.out_indices) == 1:
                    raise ValueError(
                        'head.in_channels must be what the backbone puts out, '
                        f'{backbone.feature_dims} numbers an image '
                        f"(out_type='{backbone.out_type}', width {backbone.embed_dims}), got {head['in_channels']}: "
                        'set it so, or leave it out')
        super().__init__(backbone, neck, head, **kwargs)

    def train(self, mode: bool = True) -> 'ImageClassifier':
        """Set the mode; ``get_model`` does so when the model has its pack and its config."""
        super().train(mode)
        if not mode:
            self._compare()
        return self

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> Any:
        """See MMPretrain's; a pack may have been loaded in eval mode."""
        if not self.training:
            self._compare()
        return super().extract_feat(inputs, stage)

    def _compare(self) -> None:
        packed = getattr(self.backbone, 'preprocessing', None)
        if packed is not None and packed is not self._compared:
            from .preprocessing import Preprocessing  # with all data sets, which others need not wait for
            model = dict(data_preprocessor=self.normalization())
            config = Config(name_classes(getattr(self, '_config', {})) | dict(model=model))
            Preprocessing.from_json(packed).check(config)
            self._compared = packed

    def normalization(self) -> dict[str, Any]:
        """The data preprocessor's arguments, as its buffers have them."""
        own = self.data_preprocessor
        if type(own) is not ClsDataPreprocessor:
            return dict(type=type(own).__name__)
        values = {name: [float(f'{value:.6g}') for value in getattr(own, name).flatten().tolist()]
                  for name in ('mean', 'std') if own._enable_normalize}
        return dict(values, to_rgb=own.to_rgb, pad_size_divisor=own.pad_size_divisor)
