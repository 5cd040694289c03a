"""How prompts are read, and what of it feeds the head."""
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

KEY = 'reading'
"""Name under which weights that come with folded prompts carry it."""


PREPROCESSING = 'preprocessing'
"""Name under which a pack's weights carry how it makes inputs of images."""


def to_tensor(content: Mapping[str, Any]) -> Tensor:
    """Write JSON in a tensor of bytes, which a state dict can hold."""
    return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)


def from_tensor(content: Tensor) -> dict[str, Any]:
    """Read what :func:`to_tensor` wrote."""
    return json.loads(bytes(content.tolist()))


class Reading(NamedTuple):
    """What prompts need of the network that reads them; the arguments of :meth:`.PromptedViT.read_as`."""
    num_prompts: int
    prompt_type: str
    out_type: str
    final_norm: bool
    pool_prompts: bool

    @classmethod
    def of(cls, source: Any) -> 'Reading':
        """Return an architecture's or a model's; a field without effect is set to one value."""
        prompts = source.num_prompts > 0
        return cls(source.num_prompts, source.prompt_type if prompts else 'deep', source.out_type, source.final_norm,
                   source.pool_prompts or not prompts or source.out_type != 'avg_featmap')

    def to_tensor(self) -> Tensor:
        """See :func:`to_tensor`."""
        return to_tensor(self._asdict())

    @classmethod
    def from_tensor(cls, content: Tensor) -> 'Reading':
        """Read what :meth:`to_tensor` wrote."""
        return cls(**from_tensor(content))

    def check(self, own: 'Reading') -> None:
        """Raise ValueError if a model reads prompts in another way than they were tuned."""
        mine = own._asdict()
        other = [f'{name}={value!r} (the model {mine[name]!r})' for name, value in self._asdict().items()
                 if value != mine[name]]
        if other:
            raise ValueError(f"a pack must be read as it was tuned, but it has {', '.join(other)}: set these in "
                             'model.backbone')


def check_size(tuned: Sequence[int], images: Tensor, img_size: tuple[int, int]) -> None:
    """Raise ValueError if images (B, 3, H, W), or a backbone's ``img_size``, have another size than a pack's images."""
    for what, size in (('the images are', images.shape[-2:]), ("the backbone's img_size is", img_size)):
        if tuple(size) != tuple(tuned):
            raise ValueError(
                f'a pack must be given images as it was tuned, of {tuned[0]} x {tuned[1]} pixels (height x width), but '
                f'{what} {size[0]} x {size[1]}: set model.backbone.img_size and the sizes in the test pipeline so, or '
                'classify by mmspt.MultiTaskPredictor, which does as the pack says')
