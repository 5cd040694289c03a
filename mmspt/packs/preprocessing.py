"""How an image becomes the input of a network: resize, center crop, normalize, as timm's data config says it."""
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_type_hints

import numpy as np
import torch
from mmcv.image.geometric import cv2_interp_codes, pillow_interp_codes
from mmcv.transforms import BaseTransform, CenterCrop
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor

from mmspt.datasets.nested_configs import leaves
from mmspt.datasets.resize import INTERPOLATIONS as TORCH
from mmspt.datasets.resize import Resize, ResizeEdge
from mmspt.datasets.transforms import LoadImageFromFile

from .fields import check_fields, shown

REMEDY = 'correct the recipe and export the pack again'
INTERPOLATIONS = dict(cv2=cv2_interp_codes, pillow=pillow_interp_codes, torch=TORCH)
OURS = ('LoadImageFromFile', 'Resize', 'ResizeEdge', 'PackInputs')
"""Steps that may be ours: they do as MMPretrain's do, but for ``backend='torch'``."""

PLACES = dict(LoadImageFromFile=0, Resize=1, ResizeEdge=1, CenterCrop=2, PackInputs=3)
"""Steps of a pipeline that a pack can say, in their order; two of one place exclude each other."""
FIXED: dict[str, dict[str, Any]] = dict(
    LoadImageFromFile=dict(to_float32=False, color_type='color', imdecode_backend='cv2', min_edge=None),
    Resize=dict(keep_ratio=False, scale_factor=None), ResizeEdge=dict(edge='short'), CenterCrop=dict(auto_pad=False),
    PackInputs=dict(input_key='img'), ClsDataPreprocessor=dict(pad_size_divisor=1))
"""Options that change pixels and have only one value in a pack."""


@dataclass(frozen=True)
class Preprocessing:
    """Read, resize, crop and normalize an image.

    Files are read by :class:`mmspt.datasets.LoadImageFromFile` with its defaults.

    Args:
        size: (height, width) that the network reads, in pixels; every image must come to it.
        resize: Length of the shorter edge in pixels (the aspect ratio stays), or (height, width), of the resized image;
            None leaves it as it is.
        crop: Whether the center of the resized image is cropped to ``size``.
        interpolation: In MMCV's words, one of the backend's.
        backend: Library that resizes: 'cv2', 'pillow', or 'torch', whose pixels are Pillow's but for the rounding.
        mean: Of each channel, for pixels of 0 to 255, in the order that the network reads; None normalizes nothing.
        std: Likewise; None if and only if ``mean`` is.
        to_rgb: Whether the network reads RGB; otherwise BGR.

    Raises:
        ValueError: A field out of its range.
    """
    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    crop: bool = False
    interpolation: str = 'bilinear'
    backend: str = 'cv2'
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    to_rgb: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS.get(self.backend, ()):
            raise ValueError("preprocessing's interpolation must be one that cv2, pillow or torch has, got "
                             f'{self.interpolation} for {self.backend}: {REMEDY}')
        sides = (*self.size, *(self.resize if isinstance(self.resize, tuple) else [self.resize or 1]))
        if min(sides) < 1 or min(self.std or [1]) <= 0:
            raise ValueError("preprocessing's size, resize and std must be positive, got "
                             f'{self.size}, {self.resize}, {self.std}: {REMEDY}')
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"preprocessing's mean and std must be given together, got {self.mean} and {self.std}: "
                             f'{REMEDY}')

    @classmethod
    def from_pipeline(cls, pipeline: Sequence[Mapping[str, Any]], data_preprocessor: Mapping[str, Any],
                      size: tuple[int, int]) -> 'Preprocessing':
        """Read a recipe's test pipeline and ``data_preprocessor``.

        The pipeline may have LoadImageFromFile, then Resize or ResizeEdge of the shorter edge, CenterCrop, PackInputs.
        Options that act on labels and training alone (``batch_augments``, ``to_onehot``, ``num_classes``) are ignored.

        Args:
            pipeline: Of the test data set.
            data_preprocessor: Arguments of ClsDataPreprocessor.
            size: (height, width) of images if neither Resize nor CenterCrop fixes it.

        Raises:
            ValueError: Another step, order or option.
        """
        preprocessor = _without_scope({'type': 'ClsDataPreprocessor', **data_preprocessor})
        if preprocessor['type'] != 'ClsDataPreprocessor':
            raise ValueError(f"data_preprocessor's type must be ClsDataPreprocessor, got {preprocessor['type']}: "
                             f'{REMEDY}')
        _check_options(preprocessor)
        normalization = {name: preprocessor[name] for name in ('mean', 'std', 'to_rgb') if name in preprocessor}
        unchanged = dict(resize=None, interpolation='bilinear', backend='cv2', mean=None, std=None, to_rgb=False)
        return cls._of(unchanged | dict(size=size) | _read_steps(pipeline) | normalization)

    @classmethod
    def from_config(cls, config: Config, size: tuple[int, int]) -> 'Preprocessing':
        """Read a config's, see :meth:`from_pipeline`; test-time augmentation is left out."""
        loader = config.get('test_dataloader') or config.get('val_dataloader')
        if loader is None:
            raise ValueError('a pack needs the pipeline of test_dataloader, but the config has none: add one')
        pipeline = [dict(type='PackInputs') if str(step.get('type')).endswith('TestTimeAug') else step
                    for step in next(iter(leaves(loader.dataset))).get('pipeline', [])]
        return cls.from_pipeline(pipeline, _data_preprocessor(config), size)

    @classmethod
    def from_json(cls, content: Any) -> 'Preprocessing':
        """Read what :func:`dataclasses.asdict` gave, or a card of version 1, which lists transforms.

        Raises:
            ValueError: A field is missing, unknown or wrong.
        """
        if isinstance(content, Mapping) and 'transforms' in content:
            kept = {name: value for name, value in content.items() if name != 'transforms'}
            content = dict(resize=None, interpolation='bilinear', backend='cv2') | kept | _read_steps(
                content['transforms'])
        return cls._of(content)

    @classmethod
    def _of(cls, content: Any) -> 'Preprocessing':
        return cls(**check_fields(content, get_type_hints(cls), 'preprocessing', REMEDY))

    def check(self, config: Config) -> None:
        """Raise ValueError if a config's normalization, or its test pipeline if it has one, makes other inputs of
        images; warn of what cannot be compared."""
        own = self
        try:
            given = Preprocessing.from_pipeline([], _data_preprocessor(config), self.size)
            own = replace(self, mean=given.mean, std=given.std, to_rgb=given.to_rgb)
            if 'test_dataloader' in config or 'val_dataloader' in config:
                own = Preprocessing.from_config(config, self.size)
        except ValueError as error:
            MMLogger.get_current_instance().warning(
                f'The images of a pack cannot be compared with those of the config: {error}')
        mine, other = self._acting(), own._acting()
        differ = [f'{name}={value} (the config {other[name]})' for name, value in mine.items()
                  if not (np.allclose(value, other[name], rtol=4e-3, atol=0) if name in ('mean', 'std')  # as bfloat16
                          else value == other[name])]
        if differ:
            raise ValueError(
                f'a pack must be given images as it was tuned, with {", ".join(differ)}: set data_preprocessor and '
                'test_dataloader.dataset.pipeline so, or classify by mmspt.MultiTaskPredictor, which does as the pack '
                'says')

    def _acting(self) -> dict[str, Any]:
        """The fields, those without effect set to one value."""
        fields = asdict(self)
        if self.backend == 'torch':
            fields['backend'] = 'pillow'  # whose pixels it gives; earlier recipes had it
        if self.resize is None:
            fields.update(interpolation=None, backend=None)
        if self.resize == self.size:
            fields['crop'] = False
        if self.mean is None:
            fields.update(mean=(0, 0, 0), std=(1, 1, 1))
        return fields

    def __call__(self, image: str | os.PathLike | np.ndarray) -> Tensor:
        """Return the input that the recipe's test pipeline and ClsDataPreprocessor make of an image.

        Args:
            image: A file, or pixels as OpenMMLab has them: uint8, (H, W, 3) in BGR or (H, W) of grey.

        Returns:
            Tensor: (3, height, width), float32.

        Raises:
            ValueError: The image cannot be read, or comes to another size.
        """
        pixels = _read_image(image)
        where = 'the array' if isinstance(image, np.ndarray) else repr(os.fspath(image))
        for transform in self._transforms():
            pixels = transform(dict(img=pixels))['img']
        if pixels.shape[:2] != self.size:
            raise ValueError(f'an image must come to {self.size[0]} x {self.size[1]} pixels (height x width), but '
                             f'{where} comes to {pixels.shape[0]} x {pixels.shape[1]}: pad or resize it first')
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())  # (3, height, width)
        tensor = (tensor.flip(0) if self.to_rgb else tensor).float()
        if self.mean is None or self.std is None:
            return tensor
        return (tensor - tensor.new_tensor(self.mean).view(3, 1, 1)) / tensor.new_tensor(self.std).view(3, 1, 1)

    def _transforms(self) -> Iterator[BaseTransform]:
        """Yield the recipe's own transforms; there, pairs are (width, height)."""
        if isinstance(self.resize, tuple):
            yield Resize(self.resize[::-1], backend=self.backend, interpolation=self.interpolation)
        elif self.resize is not None:
            yield ResizeEdge(self.resize, backend=self.backend, interpolation=self.interpolation)
        if self.crop:
            yield CenterCrop(self.size[::-1])


def image_size(config: Config, img_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a config's test images; ``img_size`` where its pipeline does not fix it, or has steps
    that :class:`Preprocessing` does not know."""
    try:
        return Preprocessing.from_config(config, img_size).size
    except ValueError:
        return img_size


def _data_preprocessor(config: Config) -> Mapping[str, Any]:
    """Return a config's, of the model or its own."""
    model = config.model.get('module') or config.model  # of test-time augmentation
    return model.get('data_preprocessor') or config.get('data_preprocessor') or {}


def _read_steps(pipeline: Any) -> dict[str, Any]:
    """Return the fields that a pipeline says: crop, and some of size, resize, interpolation and backend."""
    steps = [_without_scope(step) for step in (pipeline if isinstance(pipeline, Sequence) else [pipeline])]
    names = [step['type'] for step in steps]
    places = [PLACES.get(name, -1) for name in names]
    if -1 in places or sorted(set(places)) != places:
        raise ValueError('a pipeline must be LoadImageFromFile, Resize or ResizeEdge, CenterCrop, PackInputs in this '
                         f'order, each at most once, for a pack, got {shown(names)}: {REMEDY}')
    values: dict[str, Any] = dict(crop='CenterCrop' in names)
    for name, step in zip(names, steps, strict=True):
        _check_options(step)
        if 'Resize' in name:
            values.update({key: step[key] for key in ('interpolation', 'backend') if key in step})
            values['resize'] = step.get('scale')
        if name == 'Resize':
            values['resize'] = values['size'] = _height_width(step.get('scale'))
        elif name == 'CenterCrop':
            values['size'] = _height_width(step.get('crop_size'))
    return values


def _without_scope(step: Any) -> dict[str, Any]:
    """Return a step whose type has lost the scope of MMPretrain, MMCV or, for :data:`OURS`, ours."""
    if not isinstance(step, Mapping) or not isinstance(step.get('type'), str):
        raise ValueError(f"a step of a pipeline must be dict(type='...'), got {shown(step)}: {REMEDY}")
    scope, _, name = step['type'].rpartition('.')
    known = scope in ('mmpretrain', 'mmcv') or (scope == 'mmspt' and name in OURS)
    return {**step, 'type': name if known else step['type']}


def _check_options(step: Mapping[str, Any]) -> None:
    """Raise ValueError if a step has an option that a pack cannot say."""
    for name, value in FIXED[step['type']].items():
        if step.get(name, value) != value:
            raise ValueError(f"{step['type']}'s {name} must be {value!r} for a pack, got {shown(step[name])}: {REMEDY}")


def _height_width(value: Any) -> Any:
    """(height, width) of MMCV's (width, height) or one number for both."""
    return tuple(value[::-1]) if isinstance(value, (list, tuple)) else (value, value)


class _LoadImage(LoadImageFromFile):
    remedy = 'fetch it again'


def _read_image(image: str | os.PathLike | np.ndarray) -> np.ndarray:
    """(H, W, 3), uint8, BGR."""
    if isinstance(image, (str, os.PathLike)):
        return _LoadImage()(dict(img_path=os.fspath(image)))['img']
    if not isinstance(image, np.ndarray):
        raise ValueError(f'an image must be a path or an array, got {type(image).__name__}: give pixels as an array, '
                         'uint8, BGR')
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3, )) or not image.size:
        raise ValueError('an array must be uint8, (H, W, 3) in BGR or (H, W) of grey, and not empty, got '
                         f'{image.dtype}, {image.shape}: convert it first')
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
