"""Where the weights of a frozen backbone came from: which of them a checkpoint filled, and their fingerprint."""
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from .fingerprint import fingerprint

if TYPE_CHECKING:
    from ..backbones.frozen_vit import FrozenViT

MISMATCH = re.compile(r'size mismatch for ([^\s:]+)')  # torch's words


class SavedWeights:
    """Whether state dicts hold the frozen weights. A model and its copies (an average of its weights) share one object.

    Attributes:
        origin (Tensor | None): Fingerprint of the frozen weights that ``init_cfg``'s checkpoint gave; None if it gave
            not all.
        substitute (Tensor | None): The fingerprint that replaces them in state dicts at the moment; None while state
            dicts are whole.
    """

    def __init__(self) -> None:
        self.origin: Tensor | None = None
        self.substitute: Tensor | None = None
        self._warned = False

    def __deepcopy__(self, memo: dict) -> 'SavedWeights':
        return self

    @contextmanager
    def without_frozen(self, vit: 'FrozenViT') -> Iterator[None]:
        """Leave the frozen weights out of state dicts inside, unless ``init_cfg`` would not bring them back."""
        self.substitute = self._substitute_for(vit)
        try:
            yield
        finally:
            self.substitute = None

    def _substitute_for(self, vit: 'FrozenViT') -> Tensor | None:
        frozen = frozen_weights(vit)
        if self.origin is None or any(w.requires_grad or w.dtype != torch.float32 for w in frozen.values()):
            return None
        own = vit.fingerprint()
        if torch.equal(own, self.origin):
            return own
        if not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                'The frozen weights are not those of init_cfg: checkpoints hold them, too')
        return None


class Provenance:
    """What checkpoints gave to a network.

    Attributes:
        filled (set[str]): Names of the weights that came from a checkpoint.
        from_init_cfg (set[str] | None): Those that ``init_cfg``'s checkpoint gave, while it is read; else None.
        position (tuple[Tensor, Tensor] | None): The position embedding after it was resized, and before.
        reports (list): For each checkpoint that was read into the whole classifier and not trained since, what the
            loader appends to while it reads: names of missing weights, and errors.
    """

    def __init__(self) -> None:
        self.reports: list[tuple[list[str], list[str]]] = []
        self.filled: set[str] = set()
        self.from_init_cfg: set[str] | None = None
        self.position: tuple[Tensor, Tensor] | None = None
        self._cached: tuple[tuple, Tensor] | None = None  # a fingerprint, and the state of what it was taken of

    @contextmanager
    def reading_init_cfg(self) -> Iterator[set[str]]:
        """Collect the names of the weights that are filled inside."""
        given: set[str] = set()
        self.from_init_cfg = given
        try:
            yield given
        finally:
            self.from_init_cfg = None

    def fill(self, weights: dict[str, Tensor], resized: Tensor | None) -> None:
        """Note what a checkpoint gives, and the position embedding that was resized, if it was."""
        self.filled.update(weights)
        if self.from_init_cfg is not None:
            self.from_init_cfg.update(weights)
        if resized is not None:
            self.position = weights['pos_embed'].clone(), resized.clone()

    def fingerprint(self, vit: 'FrozenViT') -> Tensor:
        """Compute the fingerprint of a network's frozen weights, see :meth:`.FrozenViT.fingerprint`."""
        weights = frozen_weights(vit)
        counted = not any(weight.is_inference() for weight in weights.values())  # whether torch counts writes
        state = tuple((weight.data_ptr(), weight._version if counted else object(), weight.dtype)
                      for weight in weights.values())
        if self._cached is None or self._cached[0] != state:
            if self.position is not None and torch.equal(self.position[0].to(vit.pos_embed), vit.pos_embed):
                weights['pos_embed'] = self.position[1]
            norms = [name for name in ('ln1', 'ln2') if f'{name}.weight' in weights]
            if len(norms) == 1:  # one name, wherever the model reads it
                weights = {name.replace(f'{norms[0]}.', 'norm.', 1) if name.startswith(f'{norms[0]}.') else name: weight
                           for name, weight in weights.items()}
            self._cached = state, fingerprint(weights, settings(vit))
        return self._cached[1]

    def left_out(self, vit: 'FrozenViT') -> list[str]:
        """Names of the classifier's weights that none of the ``reports``' checkpoints filled; none without reports."""
        if not self.reports:
            return []
        left = set.intersection(*({*missing, *MISMATCH.findall('\n'.join(errors))} for missing, errors in self.reports))
        own = [f'backbone.{name}' for name, _ in vit.named_parameters()
               if name not in self.filled and (vit.is_learnable(name) or not vit.allow_random_backbone)]
        return own + sorted(name for name in left if 'backbone.' not in name and 'num_batches_tracked' not in name)

    def missing(self, vit: 'FrozenViT') -> list[str]:
        """Names of the pre-trained weights that no checkpoint filled; none if all train and none was filled."""
        whole = not vit.frozen and not all(vit.is_learnable(name) for name in self.filled)
        return [name for name, parameter in vit.named_parameters() if name not in self.filled
                and not vit.is_learnable(name) and (whole or not parameter.requires_grad)]


def all_weights(vit: 'FrozenViT') -> dict[str, Tensor]:
    """A network's parameters and persistent buffers by name, whether or not its state dict leaves frozen ones out."""
    weights = dict(chain(vit.named_parameters(remove_duplicate=False), vit.named_buffers(remove_duplicate=False)))
    for path, module in vit.named_modules():
        for name in module._non_persistent_buffers_set:
            weights.pop(f'{path}.{name}' if path else name, None)
    return weights


def frozen_weights(vit: 'FrozenViT') -> dict[str, Tensor]:
    """Those of :func:`all_weights` that pre-training knows."""
    return {name: weight for name, weight in all_weights(vit).items() if not vit.is_learnable(name)}


def settings(vit: 'FrozenViT') -> dict[str, Any]:
    """What changes a network's numbers beside its weights and their shapes."""
    projection = vit.patch_embed.projection
    norms = [module for name, module in vit.named_modules() if hasattr(module, 'eps') and not vit.is_learnable(name)]
    return dict(
        num_heads=_common([block.attn.num_heads for block in vit.layers]),
        eps=_common([norm.eps for norm in norms]),
        activation=_common([_activation(block.ffn) for block in vit.layers]),
        stride=list(projection.stride), padding=list(projection.padding), dilation=list(projection.dilation))


def _common(values: list) -> Any:
    """The value, if all are one, else all."""
    return values[0] if all(value == values[0] for value in values) else values


def _activation(ffn: Any) -> str:
    """Name of an MLP's activation, and its form if that is not the usual."""
    if not hasattr(ffn, 'layers'):
        return type(ffn).__name__
    activation = ffn.layers[0][1]
    form = getattr(activation, 'approximate', 'none')
    return type(activation).__name__ + (f'({form})' if form != 'none' else '')
