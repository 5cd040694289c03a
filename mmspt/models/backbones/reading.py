"""How prompts are read, and what of it feeds the head."""
import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

KEY = 'reading'
"""Name under which weights that come with folded prompts carry it."""


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
        """Write it as JSON in a tensor of bytes, which a state dict can hold."""
        return torch.tensor(list(json.dumps(self._asdict()).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, content: Tensor) -> 'Reading':
        """Read what :meth:`to_tensor` wrote."""
        return cls(**json.loads(bytes(content.tolist())))

    def check(self, own: 'Reading') -> None:
        """Raise ValueError if a model reads prompts in another way than they were tuned."""
        mine = own._asdict()
        other = [f'{name}={value!r} (the model {mine[name]!r})' for name, value in self._asdict().items()
                 if value != mine[name]]
        if other:
            raise ValueError(f"a pack must be read as it was tuned, but it has {', '.join(other)}: set these in "
                             'model.backbone')
