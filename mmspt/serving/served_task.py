"""Tasks of a predictor: a pack's prompts as keys and values, and its head."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmspt.models import PromptedViT
from mmspt.models.backbones.prompted_vit import BlockPrompts
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class ServedTask:
    """A task that is ready to run.

    Args:
        task: The pack's own name for it.
        classes: A name for each label.
        preprocessing: Makes an image the network's input.
        metrics: Name -> value, as tested before the pack was exported.
        reader: The network, as it reads these prompts (:meth:`.PromptedViT.read_as`).
        prompts: For each block; keys and values (N_p, 2, H, d), tokens (N_p, D), or none.
        weight: Of the linear head, (C, D), fp32.
        bias: Of the linear head, (C, ), fp32.
    """
    task: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    reader: PromptedViT
    prompts: tuple[BlockPrompts, ...]
    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.no_grad()
    def prepare(cls, pack: Pack, reader: PromptedViT) -> 'ServedTask':
        """Compute a pack's keys and values once; all tensors are copies."""
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
        return cls(pack.task, pack.classes, pack.preprocessing, dict(pack.metrics), reader, own, weight, bias)

    @property
    def nbytes(self) -> int:
        """Memory that its keys, values, prompts and head take, in bytes."""
        parts = [part for block in self.prompts for part in block if part is not None]
        return sum(tensor.nbytes for tensor in (self.weight, self.bias, *parts))

    @property
    def group(self) -> tuple:
        """Images whose tasks have the same run in one pass: the network, and which parts of prompts there are."""
        return self.reader, *(part is None for block in self.prompts for part in block)


class MixedPrompts(Sequence[BlockPrompts]):
    """Prompts of each block for a batch of images of several tasks, stacked when the block asks: (B, ...)."""

    def __init__(self, tasks: Sequence[ServedTask]) -> None:
        self.tasks = tasks  # one for each image

    def __len__(self) -> int:
        return len(self.tasks[0].prompts)

    def __getitem__(self, block: Any) -> Any:
        parts = zip(*(task.prompts[block] for task in self.tasks), strict=True)
        return BlockPrompts(*(None if part[0] is None else torch.stack(part) for part in parts))


@torch.inference_mode()
def logits_by_task(inputs: Tensor, tasks: Sequence[ServedTask]) -> list[tuple[ServedTask, list[int], Tensor]]:
    """Run a batch, in one pass for each group of tasks.

    Args:
        inputs: (B, 3, H, W).
        tasks: Of each image.

    Returns:
        list[tuple[ServedTask, list[int], Tensor]]: Each task with the places of its images in the batch and their
        logits, (images, C).
    """
    found = []
    groups = [task.group for task in tasks]
    for group in dict.fromkeys(groups):
        places = [i for i, own in enumerate(groups) if own == group]
        members = [tasks[i] for i in places]
        alone = all(task is members[0] for task in members)
        images = inputs if len(places) == len(tasks) else inputs[places]
        prompts = members[0].prompts if alone else MixedPrompts(members)
        reader = members[0].reader
        features = reader(images.to(reader.pos_embed), prompts)[-1].float()  # (images, D)
        for task in dict.fromkeys(members):
            rows = [row for row, member in enumerate(members) if member is task]
            logits = F.linear(features if alone else features[rows], task.weight, task.bias)
            found.append((task, [places[row] for row in rows], logits))
    return found
