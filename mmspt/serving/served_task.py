"""Tasks of a predictor: a pack's prompts as keys and values, and its head."""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmspt.models import PromptedViT
from mmspt.models.backbones.prompted_vit import BlockPrompts
from mmspt.models.backbones.reading import Reading
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing


@dataclass(frozen=True)
class TaskInfo:
    """Facts of a task that is served.

    Args:
        task: The pack's own name for it.
        classes: A name for each label.
        preprocessing: Makes an image the network's input.
        metrics: Name -> value, as tested before the pack was exported.
        reading: Tasks that share it run in one pass.
        nbytes: Memory that its keys, values, prompts and head take, in bytes.
    """
    task: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    reading: Reading
    nbytes: int


@dataclass(frozen=True, eq=False)
class ServedTask:
    """A task that is ready to run.

    Args:
        info: Facts of the task.
        prompts: For each block; keys and values (N_p, 2, H, d), tokens (N_p, D), or none.
        weight: Of the linear head, (C, D), fp32.
        bias: Of the linear head, (C, ), fp32.
    """
    info: TaskInfo
    prompts: tuple[BlockPrompts, ...]
    weight: Tensor
    bias: Tensor

    @property
    def parts(self) -> tuple:
        """Which parts of each block's prompts there are: images whose tasks have the same run in one pass."""
        return tuple(part is None for block in self.prompts for part in block)

    @classmethod
    @torch.no_grad()
    def prepare(cls, pack: Pack, reader: PromptedViT) -> 'ServedTask':
        """Compute a pack's keys and values once; all tensors are copies.

        Args:
            pack: Fits the network.
            reader: The network, as :meth:`.PromptedViT.read_as` gives it for the pack.
        """
        like = reader.pos_embed
        prompts = [BlockPrompts()] * reader.num_layers
        folded = pack.folded(like)
        if folded is not None:
            with torch.autocast(like.device.type, enabled=False):
                prompts = reader.prepare(folded)
        own = tuple(BlockPrompts(*(None if part is None else part.detach().clone() for part in block))
                    for block in prompts)
        weight, bias = (tensor.detach().to(like.device, torch.float32, copy=True).clone()
                        for tensor in (pack.weight, pack.bias))
        held = [weight, bias, *(part for block in own for part in block if part is not None)]
        return cls(TaskInfo(pack.task, pack.classes, pack.preprocessing, dict(pack.metrics),
                            Reading.of(pack.backbone), sum(tensor.nbytes for tensor in held)), own, weight, bias)


class MixedPrompts(Sequence[BlockPrompts]):
    """Prompts of each block for a batch of images of several tasks, stacked when the block asks: (B, ...)."""

    def __init__(self, tasks: Sequence[ServedTask]) -> None:
        self.tasks = tasks  # one for each image

    def __len__(self) -> int:
        return len(self.tasks[0].prompts)

    def __getitem__(self, block: Any) -> Any:
        parts = zip(*(task.prompts[block] for task in self.tasks), strict=True)
        return BlockPrompts(*(None if part[0] is None else torch.stack(part) for part in parts))


class Serving(NamedTuple):
    """Tasks by name, and the network for each reading. It is replaced, never changed, so a batch keeps its own."""
    tasks: Mapping[str, ServedTask]
    readers: Mapping[Reading, PromptedViT]

    def find(self, names: Iterable[str]) -> list[ServedTask]:
        """Tasks by name; ValueError if one is unknown."""
        found = []
        for name in names:
            if name not in self.tasks:
                raise ValueError(f'a task must be one of {", ".join(map(repr, self.tasks)) or "none yet"}, got '
                                 f'{name!r}: add its pack, or correct the name')
            found.append(self.tasks[name])
        return found

    @torch.inference_mode()
    def by_task(self, inputs: Tensor, tasks: Sequence[ServedTask]) -> list[tuple[ServedTask, list[int], Tensor]]:
        """Run a batch, in one pass for each way of reading prompts.

        Args:
            inputs: (B, 3, H, W).
            tasks: Of each image.

        Returns:
            list[tuple[ServedTask, list[int], Tensor]]: Each task with the places of its images in the batch and their
            logits, (images, C).
        """
        found = []
        groups = [(task.info.reading, task.parts) for task in tasks]
        for group in dict.fromkeys(groups):
            reader = self.readers[group[0]]
            places = [i for i, own in enumerate(groups) if own == group]
            members = [tasks[i] for i in places]
            alone = all(task is members[0] for task in members)
            images = inputs if len(places) == len(tasks) else inputs[places]
            prompts = members[0].prompts if alone else MixedPrompts(members)
            features = reader(images.to(reader.pos_embed), prompts)[-1].float()  # (images, D)
            for task in dict.fromkeys(members):
                rows = [row for row, member in enumerate(members) if member is task]
                logits = F.linear(features if alone else features[rows], task.weight, task.bias)
                found.append((task, [places[row] for row in rows], logits))
        return found
