"""Many tasks on one frozen network: a batch may hold images of any of them."""
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmspt.engine.model import check_device, find_prompted_vit, unwrap
from mmspt.models import PromptedViT
from mmspt.models.backbones.reading import Reading
from mmspt.packs.backbone import check_backbone, load_backbone
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing

from .folded import share
from .served_task import ServedTask, logits_by_task

Image = str | os.PathLike | np.ndarray
"""A file, or pixels as OpenMMLab has them: uint8, (H, W, 3), BGR."""


class Choice(NamedTuple):
    """A class for an image."""
    label: int
    class_name: str
    score: float
    """Softmax over the task's classes, 0 to 1."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one image and one task.

    Args:
        task: The name under which the task is served.
        label, class_name, score: Of the best class, see :class:`Choice`; None after an error.
        top: The best classes, best first; empty after an error.
        error: Why the image has no answer, or None.
    """
    task: str
    label: int | None = None
    class_name: str | None = None
    score: float | None = None
    top: tuple[Choice, ...] = ()
    error: str | None = None


class MultiTaskPredictor:
    """One frozen ViT and any number of prompt packs.

    A batch may mix tasks image by image: images go through the network together, each with its own task's keys and
    values, which are computed once, when a pack is added; then every task's head reads its images. Tasks that differ in
    number or type of prompts or in what feeds their heads go in passes of their own.

    All methods may be called by several threads at once. Requests in flight keep the packs they started with.

    Args:
        backbone: A checkpoint's path or address, in any layout of :mod:`mmspt.models.weights`, or a built
            :class:`mmspt.models.PromptedViT` or a classifier that has one. With a path, the network is built when the
            first pack comes. A built network stays the caller's; its weights, which are shared, must not change.
        packs: Packs or their paths, under the names of their tasks; or a mapping from names of your own.
        device: Where it computes. None: where a built network is; for a path the GPU, if there is one.

    Attributes:
        device (torch.device): Where it computes.

    Raises:
        OSError, RuntimeError: A file cannot be read.
        ValueError: A pack of another backbone, two of one name, or a damaged one.
    """

    def __init__(self, backbone: str | os.PathLike | nn.Module,
                 packs: Iterable[Pack | str | os.PathLike] | Mapping[str, Pack | str | os.PathLike] = (),
                 device: str | torch.device | None = None) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, ServedTask] = {}  # replaced, never changed: a batch keeps its own
        self._readers: dict[Reading, PromptedViT] = {}
        self._vit: PromptedViT | None = None
        if isinstance(backbone, (str, os.PathLike)):
            self._path, self.device = os.fspath(backbone), check_device(device)
        else:
            self._vit = _take_backbone(backbone, device)
            self.device = self._vit.pos_embed.device
        if isinstance(packs, (str, os.PathLike, Pack)):
            raise ValueError(f'packs must be a list or a mapping, got {type(packs).__name__}: put it into a list')
        for name, pack in packs.items() if isinstance(packs, Mapping) else ((None, pack) for pack in packs):
            self.add(pack, name)

    @property
    def tasks(self) -> dict[str, ServedTask]:
        """Name -> task, in the order in which tasks were added."""
        return dict(self._tasks)

    def add(self, pack: Pack | str | os.PathLike, name: str | None = None, replace: bool = False) -> None:
        """Serve a task. Weights in half precision become fp32 in memory.

        Args:
            pack: A pack or its path.
            name: To serve it under; None is the pack's own.
            replace: Take the place of a pack of that name, if there is one.

        Raises:
            OSError, RuntimeError: A file cannot be read.
            ValueError: The pack was tuned on another backbone or is damaged, or the name is taken.
        """
        pack = pack if isinstance(pack, Pack) else Pack.load(pack)
        name = pack.task if name is None else name
        with self._lock:
            if name in self._tasks and not replace:
                raise ValueError(f'a task must have a name of its own, but {name!r} is served already: give another '
                                 'name (add(pack, name), or packs as a dict of names), or say replace=True')
            vit = self._vit or load_backbone(pack.backbone, self._path).to(self.device)
            check_backbone(pack, vit, f'pack {name!r}')
            own = dict(img_size=tuple(vit.img_size), interpolate_mode=vit.interpolate_mode)
            found = {field: getattr(pack.backbone, field) for field in own}
            if found != own:  # all else is part of the fingerprint
                raise ValueError(f'a pack must read images as the backbone does, but pack {name!r} has {found}, and '
                                 f'the backbone {own}: serve it by a predictor of its own')
            reading = Reading.of(pack.backbone)
            reader = self._readers.get(reading) or vit.read_as(*reading)
            self._tasks = self._tasks | {name: ServedTask.prepare(pack, reader)}
            self._vit, self._readers[reading] = vit, reader

    def remove(self, name: str) -> None:
        """Stop serving a task; ValueError if there is none of that name."""
        with self._lock:
            _find(self._tasks, [name])
            self._tasks = {other: task for other, task in self._tasks.items() if other != name}

    def logits(self, inputs: Tensor, tasks: str | Sequence[str]) -> list[Tensor]:
        """Compute each image's logits.

        Args:
            inputs: Images as each task's preprocessing leaves them, (B, 3, H, W).
            tasks: A name for all, or one for each image.

        Returns:
            list[Tensor]: For each image, (C, ), fp32, on the predictor's device, C being its task's classes.

        Raises:
            ValueError: An unknown task, no image, or other shapes.
        """
        found = _find(self._tasks, _names(tasks, len(inputs)))
        vit = found[0].reader
        size = (len(inputs), vit.patch_embed.projection.in_channels, *vit.img_size)
        if tuple(inputs.shape) != size:
            raise ValueError(f'inputs must be (B, channels, height, width) = {size}, got {tuple(inputs.shape)}: bring '
                             "them through the task's preprocessing")
        rows: list[Tensor] = [inputs] * len(inputs)
        for _, where, logits in logits_by_task(inputs, found):
            for i, row in zip(where, logits, strict=True):
                rows[i] = row
        return rows

    def predict(self, images: Sequence[Image], tasks: str | Sequence[str], batch_size: int = 32,
                topk: int = 1) -> list[Prediction]:
        """Classify images. An image that cannot be read gets an error; the others are answered.

        Args:
            images: Files, or arrays of uint8, (H, W, 3), BGR.
            tasks: A name for all, or one for each image.
            batch_size, topk: As for :meth:`stream`.

        Raises:
            ValueError: An unknown task, no image, or numbers out of range.
        """
        if isinstance(images, (str, os.PathLike)) or (isinstance(images, np.ndarray) and images.ndim != 4):
            raise ValueError('images must be a sequence of files or arrays, got one image: put it into a list')
        requests = list(zip(images, _names(tasks, len(images)), strict=True))
        return list(self.stream(requests, batch_size, topk))

    def stream(self, requests: Iterable[tuple[Image, str]], batch_size: int = 32,
               topk: int = 1) -> Iterator[Prediction]:
        """Classify images batch by batch; threads read the next batch while the network works.

        Args:
            requests: (image, task), of the tasks at the time of the call.
            batch_size: Requests in a batch.
            topk: How many of the best classes.

        Raises:
            ValueError: Numbers out of range; an unknown task among a sequence of requests. In another iterable it is
                found when it is reached.
        """
        for what, number in dict(batch_size=batch_size, topk=topk).items():
            if type(number) is not int or number < 1:
                raise ValueError(f'{what} must be a whole number of at least 1, got {number!r}: set it so')
        served = self._tasks
        if isinstance(requests, Sequence):
            _find(served, (name for _, name in requests))
        return _stream(served, iter(requests), batch_size, topk)


def _take_backbone(model: nn.Module, device: str | torch.device | None) -> PromptedViT:
    """Return a model's PromptedViT without its prompts, in eval mode; the weights are shared unless they must move."""
    vit = find_prompted_vit(unwrap(model)) if isinstance(model, nn.Module) else None
    if vit is None:
        raise ValueError("a backbone must be a checkpoint's path, a PromptedViT or a classifier that has one, got "
                         f'{type(model).__name__}: build mmspt.models.PromptedViT with the checkpoint, or name the '
                         'file')
    vit = share(vit).eval()
    vit.prompts = None
    return vit if device is None else vit.to(check_device(device))


def _stream(served: Mapping[str, ServedTask], requests: Iterator[tuple[Image, str]], batch_size: int,
            topk: int) -> Iterator[Prediction]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        loading = _load(served, islice(requests, batch_size), threads)
        while loading:
            batch, loading = loading, _load(served, islice(requests, batch_size), threads)
            yield from _answer([(name, task, future.result()) for name, task, future in batch], topk)


@torch.inference_mode()
def _answer(batch: Sequence[tuple[str, ServedTask, Tensor | str]], topk: int) -> list[Prediction]:
    """Answer a batch of (name, task, input or error)."""
    answers = [Prediction(name, error=loaded if isinstance(loaded, str) else None) for name, _, loaded in batch]
    good = [i for i, (_, _, loaded) in enumerate(batch) if isinstance(loaded, Tensor)]
    if not good:
        return answers
    inputs = torch.stack([batch[i][2] for i in good])  # type: ignore[misc]
    for task, where, logits in logits_by_task(inputs, [batch[i][1] for i in good]):
        best = logits.softmax(dim=1).topk(min(topk, logits.shape[1]))
        for row, scores, labels in zip(where, best.values.tolist(), best.indices.tolist(), strict=True):
            name = batch[good[row]][0]
            top = tuple(Choice(label, task.classes[label], score)
                        for label, score in zip(labels, scores, strict=True))
            answers[good[row]] = Prediction(name, *top[0], top)
    return answers


def _find(served: Mapping[str, ServedTask], names: Iterable[str]) -> list[ServedTask]:
    """Return tasks by name; ValueError if one is unknown."""
    names = list(names)
    for name in names:
        if name not in served:
            raise ValueError(f'a task must be one of {", ".join(map(repr, served)) or "none yet"}, got {name!r}: add '
                             'its pack, or correct the name')
    return [served[name] for name in names]


def _names(tasks: str | Sequence[str], count: int) -> list[str]:
    """Return the task of each of ``count`` images; ValueError if there is no image or another number of names."""
    if not count:
        raise ValueError('a batch must hold at least one image, got none: leave it out')
    names = [tasks] * count if isinstance(tasks, str) else list(tasks)
    if len(names) != count:
        raise ValueError(f'tasks must be one name, or one for each image, got {len(names)} for {count} images: give as '
                         'many')
    return names


def _load(served: Mapping[str, ServedTask], requests: Iterable[tuple[Image, str]],
          threads: ThreadPoolExecutor) -> list[tuple[str, ServedTask, Future]]:
    """Begin to read a batch's images; one that several tasks preprocess alike is read once."""
    requests = list(requests)  # kept, since the id of an array that is freed is given again
    loading: dict[tuple[Any, Preprocessing], Future] = {}
    batch = []
    for image, name in requests:
        task, = _find(served, [name])
        same = os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)
        key = same, task.preprocessing
        if key not in loading:
            loading[key] = threads.submit(_read, image, task.preprocessing)
        batch.append((name, task, loading[key]))
    return batch


def _read(image: Image, preprocessing: Preprocessing) -> Tensor | str:
    """Return an input of the network, or the error."""
    try:
        return preprocessing(image)
    except ValueError as error:
        return str(error)
    except Exception as error:  # a decoder may raise anything, and the other images are to be answered
        return f'{type(error).__name__}: {error}'
