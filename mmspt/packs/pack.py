"""The prompt pack: what was tuned for a task, in one small file beside a backbone that everybody has."""
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mmspt.files import write_bytes
from mmspt.models.fingerprint import KEY as FINGERPRINT
from mmspt.models.fingerprint import LENGTH, show
from mmspt.safetensors_files import HEADER_MEMORY, read_safetensors
from mmspt.safetensors_files import PACK_CARD as CARD

from .architecture import Architecture
from .preprocessing import Preprocessing
from .rules import Rule, check_fields, is_number, plain, shown, text

VERSION = 1
PROMPTS, WEIGHT, BIAS = 'backbone.prompts', 'head.fc.weight', 'head.fc.bias'
GATES, TEMPERATURES = 'backbone.gate_logits', 'backbone.temperatures'
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_CLASSES = 2**17
MAX_RECIPE = 2**17
MAX_BRACKETS = 2**16
"""In a card's text: as many lists and objects it may have."""
REMEDY = 'the file is damaged or from another program: fetch it again, or export it anew'

RULES = dict(
    version=Rule(f'{VERSION}', lambda value: type(value) is int and value == VERSION),
    task=text(200, 1),
    classes=Rule(f'1 to {MAX_CLASSES:,} names of 1 to 1,000 characters', lambda value: (
        isinstance(value, list) and 1 <= len(value) <= MAX_CLASSES and all(map(text(1000, 1).holds, value)))),
    fingerprint=Rule(f'{2 * LENGTH} hexadecimal digits', lambda value: (
        isinstance(value, str) and len(value) == 2 * LENGTH and set(value) <= set('0123456789abcdef'))),
    checkpoint=text(1000),
    backbone=Rule('an object', lambda value: isinstance(value, dict)),
    preprocessing=Rule('an object', lambda value: isinstance(value, dict)),
    recipe=text(MAX_RECIPE),
    metrics=Rule('at most 100 numbers by name', lambda value: (
        isinstance(value, dict) and len(value) <= 100
        and all(text(200, 1).holds(name) and is_number(number) for name, number in value.items()))),
    versions=Rule('at most 100 texts by name', lambda value: (
        isinstance(value, dict) and len(value) <= 100
        and all(text(200, 1).holds(part) for item in value.items() for part in item))))


def _limit(size: int) -> Callable[[int], None]:
    """Refuse a header whose objects take more than twice the file and 16 MiB, the file's size in bytes given."""
    def charge(memory: int) -> None:
        if memory > 2 * size + 2**24:
            raise ValueError(f"a pack's names and recipe must be short beside its weights, but they would take "
                             f'{memory:,} bytes of memory in a file of {size:,}: shorten them and export it anew')
    return charge


def check_header(names: Collection[str], metadata: Mapping[str, str]) -> None:
    """Refuse a file by its header, before a tensor of it is made: ten thousand empty ones fit in a small file.

    Args:
        names (Collection[str]): Of its tensors.
        metadata (Mapping[str, str]): Name -> text.

    Raises:
        ValueError: It is no pack, or has tensors that no pack has.
    """
    if CARD not in metadata:
        raise ValueError(f'a pack must have {CARD} among its metadata: it is no pack, make one with '
                         'python tools/pack.py export')
    if set(names) - {PROMPTS, GATES, TEMPERATURES, WEIGHT, BIAS} or not {WEIGHT, BIAS} <= set(names):
        raise ValueError(f'a pack must hold {WEIGHT}, {BIAS} and, if there are prompts, {PROMPTS} (with {GATES} '
                         f'and {TEMPERATURES} if gated), got {shown(", ".join(sorted(names)))}: {REMEDY}')


@dataclass(frozen=True, eq=False)
class Pack:
    """What was tuned for one task, and what is needed to use it.

    Args:
        task: Its name.
        classes: A name for each output of the head.
        prompts: (L, N_p, D) if deep, (1, N_p, D) if shallow; None for a linear probe.
        weight: Of the linear head, (classes, D).
        bias: Of the linear head, (classes, ).
        backbone: How the frozen backbone is built.
        fingerprint: Of the frozen backbone, uint8, (32, ), see :meth:`.FrozenViT.fingerprint`.
        preprocessing: How an image becomes the backbone's input.
        gate_logits: (L - 1,) of gated prompts, else None.
        temperatures: (L,) of gated prompts, else None.
        checkpoint: File name or address of the backbone's checkpoint: a hint for people, nothing reads it.
        recipe: Text of the config that it was tuned with: for people, nothing runs it.
        metrics: Name -> value, as tested.
        versions: Package -> version that it was exported with.

    Raises:
        ValueError: Parts that do not fit each other, or hold what a pack cannot.
    """
    task: str
    classes: tuple[str, ...]
    prompts: Tensor | None
    weight: Tensor
    bias: Tensor
    backbone: Architecture
    fingerprint: Tensor
    preprocessing: Preprocessing
    gate_logits: Tensor | None = None
    temperatures: Tensor | None = None
    checkpoint: str = ''
    recipe: str = ''
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self._card(), RULES, 'a pack', REMEDY)
        classes, width = len(self.classes), self.backbone.embed_dims
        layers = self.backbone.num_layers if self.backbone.prompt_type == 'gated' else None
        expected = {PROMPTS: self.backbone.prompts_shape, GATES: None if layers is None else (layers - 1, ),
                    TEMPERATURES: None if layers is None else (layers, ), WEIGHT: (classes, width), BIAS: (classes, )}
        tensors = self.tensors()
        for name, shape in expected.items():
            tensor = tensors.get(name)
            found = None if tensor is None else tuple(tensor.shape)
            if found == shape:
                continue
            why = f'{classes} class names' if name == BIAS else f'{classes} class names and width {width}' \
                if name == WEIGHT else 'a backbone of this depth, width, prompt_type and num_prompts'
            raise ValueError(f"a pack's {name} must be {'absent' if shape is None else shape} for {why}, got "
                             f"{'none' if found is None else found}: {REMEDY}")
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES or not all(part.isfinite().all() for part in tensor.flatten().split(2**20)):
                raise ValueError(f"a pack's {name} must be finite numbers of {', '.join(map(str, DTYPES))}, got "
                                 f'{tensor.dtype if tensor.dtype not in DTYPES else "NaN or infinity"}: {REMEDY}')
        if self.preprocessing.size != self.backbone.img_size:
            raise ValueError(f"a pack's preprocessing must end at the backbone's img_size {self.backbone.img_size}, "
                             f'got {self.preprocessing.size}: {REMEDY}')

    def tensors(self) -> dict[str, Tensor]:
        """The tuned weights, named as in the classifier's state dict."""
        named = {PROMPTS: self.prompts, GATES: self.gate_logits, TEMPERATURES: self.temperatures,
                 WEIGHT: self.weight, BIAS: self.bias}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of the tuned weights."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def _card(self) -> dict[str, Any]:
        return dict(
            version=VERSION, task=self.task, classes=list(self.classes), fingerprint=show(self.fingerprint),
            checkpoint=self.checkpoint, backbone=self.backbone.to_json(), preprocessing=self.preprocessing.to_json(),
            recipe=self.recipe, metrics=dict(self.metrics), versions=dict(self.versions))

    def save(self, path: str | os.PathLike) -> None:
        """Write it beside and rename.

        Raises:
            OSError: That fails.
            ValueError: Names and recipe are too long for the weights beside them.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
        content = safetensors.torch.save(tensors, {CARD: json.dumps(self._card(), ensure_ascii=False)})
        _limit(len(content))(HEADER_MEMORY * int.from_bytes(content[:8], 'little'))
        write_bytes(os.fspath(path), content)

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'Pack':
        """Read a pack.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no pack, or one that is damaged or hostile.
        """
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise FileNotFoundError(f"a pack must be a file, but '{name}' is none: make one with python tools/pack.py "
                                    'export')
        try:
            return cls.from_file(*read_safetensors(name, charge=_limit(os.path.getsize(name)),
                                                   check=check_header))
        except Exception as error:  # safetensors raises what torch does, which differs from version to version
            raise ValueError(f"pack '{plain(name)}' is refused: {plain(str(error)):.500}") from error

    @classmethod
    def from_file(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> 'Pack':
        """Read it from a safetensors file's tensors and metadata.

        Raises:
            ValueError: They are no pack, or one that is damaged or hostile.
        """
        check_header(tensors, metadata)
        written = metadata[CARD]
        if written.count('[') + written.count('{') > MAX_BRACKETS:
            raise ValueError(f"a pack's {CARD} must have at most {MAX_BRACKETS:,} brackets, got more: {REMEDY}")
        try:
            content = json.loads(written)
        except (RecursionError, ValueError) as error:
            raise ValueError(f"a pack's {CARD} must be JSON, but {error!s:.100}: {REMEDY}") from error
        card = check_fields(content, RULES, 'a pack', REMEDY)
        return cls(
            task=card['task'], classes=tuple(card['classes']), prompts=tensors.get(PROMPTS), weight=tensors[WEIGHT],
            bias=tensors[BIAS], gate_logits=tensors.get(GATES), temperatures=tensors.get(TEMPERATURES),
            backbone=Architecture.from_json(card['backbone']),
            fingerprint=torch.tensor(list(bytes.fromhex(card['fingerprint'])), dtype=torch.uint8),
            preprocessing=Preprocessing.from_json(card['preprocessing']), checkpoint=card['checkpoint'],
            recipe=card['recipe'], metrics=card['metrics'], versions=card['versions'])

    def checkpoint_content(self) -> dict[str, Any]:
        """As MMEngine's loaders return a checkpoint: with it ``get_model`` and ``load_from`` take packs.

        The fingerprint stands for the frozen weights: :class:`.FrozenViT` reads these from its ``init_cfg`` and
        compares. ``meta`` brings the class names.
        """
        state = OrderedDict(self.tensors() | {f'backbone.{FINGERPRINT}': self.fingerprint})
        state._metadata = {'': {CARD: self.backbone}}  # type: ignore[attr-defined]
        return dict(state_dict=state, meta=dict(dataset_meta=dict(classes=self.classes)))
