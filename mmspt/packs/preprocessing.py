"""How an image becomes what a network reads, written down as data in which nothing can run.

MMEngine's registries import any dotted name that they are asked for (``type='os.system'``), so a file from a stranger
must not reach them. Here a transform is one of four, built from its class, and each argument has a rule of its own.
"""
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, CenterCrop, Pad, Resize
from mmpretrain.datasets.transforms import ResizeEdge
from torch import Tensor

from mmspt.datasets.image_file import MAX_PIXELS
from mmspt.datasets.transforms import LoadImageFromFile

from .rules import BOOL, Rule, one_of

MAX_SIDE = 4096
"""Longest side that a transform may be told to make, in pixels."""
MAX_LENGTH = 65_535
"""Longest side of an image before or after any transform, in pixels (a JPEG has no longer)."""
MAX_TRANSFORMS = 8
REMEDY = 'correct the recipe and export the pack again'
LOADING = dict(to_float32=False, color_type='color', imdecode_backend='cv2')
INTERPOLATIONS = dict(cv2=('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'),
                      pillow=('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming'))


def _check(rule: Rule, name: str, value: Any) -> Any:
    """The value, or a ValueError."""
    if not rule.holds(value):
        raise ValueError(f'{name} must be {rule.text}, got {_shown(value)}: {REMEDY}')
    return value


class _Kind(NamedTuple):
    """A transform: its class, each argument's rule, MMCV's defaults, a rule for all together, and what size it leaves.

    ``leaves`` maps arguments, height and width to (height, width).
    """
    build: Callable[..., BaseTransform]
    rules: Mapping[str, Rule]
    defaults: Mapping[str, Any]
    together: Rule
    leaves: Callable[[Mapping[str, Any], int, int], tuple[int, int]]


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIDE


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_side, value))


def _are_numbers(value: Any, least: float) -> bool:
    return value is None or (isinstance(value, tuple) and len(value) == 3
                             and all(type(v) in (int, float) and least <= v <= 255 for v in value))


def _resize_leaves(args: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    size = args['scale'] if isinstance(args['scale'], tuple) else (args['scale'], args['scale'])
    if args['keep_ratio']:
        size = mmcv.rescale_size((width, height), size)
    return size[1], size[0]


def _resize_edge_leaves(args: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    scale, edge = args['scale'], args['edge']
    if edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height):
        return int(scale * height / width), scale
    return scale, int(scale * width / height)


def _crop_leaves(args: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    size = args['crop_size'] if isinstance(args['crop_size'], tuple) else (args['crop_size'], args['crop_size'])
    return min(height, size[1]), min(width, size[0])


def _pad_leaves(args: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    size = (max(height, width), ) * 2 if args['pad_to_square'] else args['size']
    return max(height, size[1]), max(width, size[0])


SIDE = Rule(f'a whole number from 1 to {MAX_SIDE:,}', _is_side)
PAIR = Rule(f'two whole numbers from 1 to {MAX_SIDE:,}, width and height, or null',
             lambda value: value is None or _is_pair(value))
SIDES = Rule(f'a whole number from 1 to {MAX_SIDE:,} or two, width and height',
              lambda value: _is_side(value) or _is_pair(value))
BYTE = Rule('a whole number from 0 to 255', lambda value: type(value) is int and 0 <= value <= 255)
SIZE = Rule(f'two whole numbers from 1 to {MAX_SIDE:,}, height and width', _is_pair)
MEAN = Rule('three numbers from 0 to 255, or null', lambda value: _are_numbers(value, 0))
STD = Rule('three numbers from 0.001 to 255, or null', lambda value: _are_numbers(value, 1e-3))
RESIZING = dict(backend=one_of(*INTERPOLATIONS), interpolation=one_of(*sum(INTERPOLATIONS.values(), ())))
KNOWN = Rule('of a backend that has the interpolation ('
              + '; '.join(f'{backend} has {", ".join(names)}' for backend, names in INTERPOLATIONS.items()) + ')',
              lambda args: args['interpolation'] in INTERPOLATIONS[args['backend']])

KINDS: dict[str, _Kind] = dict(
    Resize=_Kind(Resize, dict(scale=SIDES, keep_ratio=BOOL, **RESIZING),
                 dict(keep_ratio=False, backend='cv2', interpolation='bilinear'), KNOWN, _resize_leaves),
    ResizeEdge=_Kind(ResizeEdge, dict(scale=SIDE, edge=one_of('short', 'long', 'width', 'height'), **RESIZING),
                     dict(edge='short', backend='cv2', interpolation='bilinear'), KNOWN, _resize_edge_leaves),
    CenterCrop=_Kind(CenterCrop, dict(crop_size=SIDES), {}, Rule('', lambda args: True), _crop_leaves),
    Pad=_Kind(Pad, dict(size=PAIR, pad_to_square=BOOL, pad_val=BYTE,
                        padding_mode=one_of('constant', 'edge', 'reflect', 'symmetric')),
              dict(size=None, pad_to_square=False, pad_val=0, padding_mode='constant'),
              Rule('of either size or pad_to_square', lambda args: (args['size'] is None) == args['pad_to_square']),
              _pad_leaves))
"""The closed list."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what the network reads: deterministic transforms, then mean and standard deviation.

    Transforms are MMCV's and MMPretrain's Resize, ResizeEdge, CenterCrop and Pad with the arguments in ``KINDS``; what
    is left out is filled in with today's default, so a pack says all. As there, pairs among the arguments are (width,
    height). Images are read by :class:`mmspt.datasets.LoadImageFromFile` with its defaults.

    Args:
        transforms: At most 8, each a mapping of 'type' and arguments.
        size: (height, width) that leaves them, 1 to 4,096 pixels each; every image must come to it.
        mean: Of each channel, 0 to 255, in the order that the network reads; None for no normalization.
        std: Likewise, 0.001 to 255; None if and only if ``mean`` is.
        to_rgb: Whether the network reads RGB; otherwise BGR.

    Raises:
        ValueError: Anything else.
    """
    transforms: tuple[Mapping[str, Any], ...]
    size: tuple[int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    to_rgb: bool

    def __post_init__(self) -> None:
        several = Rule(f'a list of at most {MAX_TRANSFORMS}',
                        lambda value: isinstance(value, tuple) and len(value) <= MAX_TRANSFORMS)
        values = dict(transforms=tuple(map(_transform, _check(several, 'transforms', _tupled(self.transforms)))),
                      size=_check(SIZE, 'size', _tupled(self.size)), to_rgb=_check(BOOL, 'to_rgb', self.to_rgb))
        for name, rule in dict(mean=MEAN, std=STD).items():
            numbers = _check(rule, name, _tupled(getattr(self, name)))
            values[name] = None if numbers is None else tuple(map(float, numbers))
        if (self.mean is None) != (self.std is None):
            raise ValueError(f'mean and std must be given together, got {_shown((self.mean, self.std))}: {REMEDY}')
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_config(cls, pipeline: Sequence[Mapping[str, Any]], data_preprocessor: Mapping[str, Any],
                    size: tuple[int, int]) -> 'Preprocessing':
        """That of a recipe: its test pipeline, its ``data_preprocessor`` and the (height, width) its backbone reads.

        Loading first and PackInputs last are left out. What acts on labels and training alone (``batch_augments``,
        ``to_onehot``, ``num_classes``) is ignored.

        Raises:
            ValueError: A transform that is not on the closed list, or anything set that a pack cannot say.
        """
        _fixed('data_preprocessor', data_preprocessor, dict(type='ClsDataPreprocessor', pad_size_divisor=1))
        ignored = {'type', 'pad_size_divisor', 'pad_value', 'num_classes', 'batch_augments', 'to_onehot'}
        unknown = set(data_preprocessor) - ignored - {'mean', 'std', 'to_rgb'}
        if unknown:
            raise ValueError(f'data_preprocessor must have no options beside those of ClsDataPreprocessor, got '
                             f'{_shown(sorted(map(str, unknown)))}: {REMEDY}')
        steps = [_bare(step) for step in pipeline]
        if steps and steps[0]['type'] in ('LoadImageFromFile', 'mmspt.LoadImageFromFile'):
            _fixed('LoadImageFromFile', steps.pop(0), LOADING)
        if steps and steps[-1]['type'] == 'PackInputs':
            _fixed('PackInputs', steps.pop(), dict(input_key='img'))
        return cls(tuple(steps), size, data_preprocessor.get('mean'), data_preprocessor.get('std'),
                   data_preprocessor.get('to_rgb', False))

    @classmethod
    def from_json(cls, content: object) -> 'Preprocessing':
        """The inverse of :meth:`to_json`; the content may come from a stranger.

        Raises:
            ValueError: Anything that :meth:`to_json` does not write.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(content, Mapping) or set(content) != names:
            raise ValueError(f'preprocessing must have just the keys {", ".join(sorted(names))}, got '
                             f'{_shown(list(content) if isinstance(content, Mapping) else content)}: {REMEDY}')
        return cls(**content)

    def to_json(self) -> dict[str, Any]:
        """Mappings, lists, numbers and text: what JSON has."""
        transforms = [{name: _listed(value) for name, value in transform.items()} for transform in self.transforms]
        return dict(transforms=transforms, size=list(self.size), mean=_listed(self.mean), std=_listed(self.std),
                    to_rgb=self.to_rgb)

    def __call__(self, image: str | os.PathLike | np.ndarray) -> Tensor:
        """(3, height, width), float32: what the recipe's test pipeline and ClsDataPreprocessor make of the image.

        Args:
            image: A file, or pixels as OpenMMLab has them: uint8, (H, W, 3) in BGR or (H, W) of grey.

        Raises:
            ValueError: The image cannot be read, would take too much memory on the way, or comes to another size.
        """
        pixels = _read(image)
        where = 'the array' if isinstance(image, np.ndarray) else repr(os.fspath(image))
        for transform in self.transforms:
            kind = KINDS[transform['type']]
            args = {name: value for name, value in transform.items() if name != 'type'}
            _check_room(where, transform['type'], pixels.shape[:2], kind.leaves(args, *pixels.shape[:2]))
            pixels = kind.build(**args)(dict(img=pixels))['img']
        if pixels.shape[:2] != self.size:
            raise ValueError(f'every image must come to {self.size[0]} x {self.size[1]} pixels (height x width), but '
                             f'{where} comes to {pixels.shape[0]} x {pixels.shape[1]}: the transforms of this pack do '
                             'not fit it; pad or resize it first')
        return self.normalize(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))

    def normalize(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W), BGR in 0..255 -> the same shape, float32, (pixels - mean) / std, RGB if ``to_rgb``."""
        pixels = (pixels.flip(-3) if self.to_rgb else pixels).float()
        if self.mean is None or self.std is None:
            return pixels
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def _transform(given: Any) -> dict[str, Any]:
    """One transform, checked, with every argument."""
    name = given.get('type') if isinstance(given, Mapping) else given
    if not isinstance(given, Mapping) or not isinstance(name, str) or name not in KINDS:
        raise ValueError(f'a transform must be one of {", ".join(KINDS)}, got {_shown(name)}: {REMEDY}')
    kind = KINDS[name]
    args = {**kind.defaults, **{key: _tupled(value) for key, value in given.items() if key != 'type'}}
    if set(args) != set(kind.rules):
        raise ValueError(f'{name} must have the arguments {", ".join(kind.rules)}, all but '
                         f'{", ".join(kind.rules.keys() - kind.defaults.keys()) or "none"} optional, got '
                         f'{_shown(list(given))}: {REMEDY}')
    for key, rule in kind.rules.items():
        _check(rule, f'{key} of {name}', args[key])
    _check(kind.together, f'the arguments of {name}', args)
    return {'type': name, **{key: args[key] for key in kind.rules}}


def _bare(step: Any) -> dict[str, Any]:
    """A step of a config, its type without MMPretrain's or MMCV's scope, without arguments that do nothing here."""
    if not isinstance(step, Mapping) or not isinstance(step.get('type'), str):
        raise ValueError(f"a step of the pipeline must be dict(type='...'), got {_shown(step)}: {REMEDY}")
    scope, _, name = step['type'].rpartition('.')
    idle = dict(clip_object_border=(True, False), auto_pad=(False, ))  # the former acts on boxes alone
    return {'type': name if scope in ('mmpretrain', 'mmcv') else step['type'],
            **{key: value for key, value in step.items() if key != 'type' and value not in idle.get(key, ())}}


def _fixed(name: str, options: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise ValueError if an option is set to another value than the only one that a pack can say."""
    for key, value in values.items():
        given = options.get(key, value)
        if given != value and (key, given) != ('type', f'mmpretrain.{value}'):
            raise ValueError(f'{key} of {name} must be {value!r} for a pack, got {_shown(given)}: {REMEDY}')


class _LoadImage(LoadImageFromFile):
    remedy = 'fetch it again'


def _read(image: str | os.PathLike | np.ndarray) -> np.ndarray:
    """(H, W, 3), uint8, BGR."""
    if isinstance(image, (str, os.PathLike)):
        return _LoadImage()(dict(img_path=os.fspath(image)))['img']
    if not isinstance(image, np.ndarray):
        raise ValueError(f'an image must be a path or an array, got {type(image).__name__}: give pixels as an array, '
                         'uint8, BGR')
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3, )) or not image.size:
        raise ValueError('an array must be uint8, (H, W, 3) in BGR or (H, W) of grey, and not empty, got '
                         f'{image.dtype}, {_shown(image.shape)}: convert it first')
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def _check_room(where: str, name: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Raise ValueError if a transform from one (height, width) to another leaves nothing, or takes too much memory.

    Pillow changes the width first, so it holds the old height times the new width.
    """
    sizes = (f'{where}: {name} makes {after[0]:,} x {after[1]:,} pixels (height x width) of '
             f'{before[0]:,} x {before[1]:,}')
    if min(after) < 1:
        raise ValueError(f'{sizes}, but every side must keep a pixel: the image is too narrow, crop it first')
    if max(*before, *after) > MAX_LENGTH or max(before[0], after[0]) * after[1] > MAX_PIXELS:
        raise ValueError(f'{sizes}, but a side must not exceed {MAX_LENGTH:,} pixels, nor the area on the way '
                         f'{MAX_PIXELS:,}: the image is too large or too narrow, crop or shrink it first')


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    """A value for a message, shorter than 100 characters, however large or nested it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    text = short.repr(value)
    return text if len(text) < 100 else f'{text[:95]}...'
