"""The prompt pack: what was tuned for a task, in one small file, without the backbone."""
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mmspt.files import write_bytes
from mmspt.models.backbones.prompted_vit import FOLDED
from mmspt.models.backbones.reading import KEY as READING
from mmspt.models.backbones.reading import Reading
from mmspt.models.methods import FoldedPrompts
from mmspt.models.methods.gated_prompts import TEMPERATURES
from mmspt.models.weights.fingerprint import KEY as FINGERPRINT
from mmspt.models.weights.fingerprint import LENGTH, to_hex
from mmspt.safetensors_files import PACK_CARD as CARD
from mmspt.safetensors_files import read_safetensors

from .architecture import Architecture
from .preprocessing import Preprocessing
from .rules import NAME, TEXT, Rule, check_fields, is_number, plain, shown

VERSION = 2
"""1 lists transforms in place of the fields of preprocessing, and gates and temperatures as GateVPT tunes them; it is
read, too."""
PROMPTS, SCALE, GATE = 'prompts', 'logit_scale', 'gate'
WEIGHT, BIAS = 'head.fc.weight', 'head.fc.bias'
PROMPTS_1, GATE_LOGITS_1, TEMPERATURES_1 = 'backbone.prompts', 'backbone.gate_logits', 'backbone.temperatures'
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REMEDY = 'the file is damaged or from another program: fetch it again, or export it anew'

OBJECT = Rule('an object', lambda value: isinstance(value, dict))
RULES = dict(
    version=Rule(f'1 or {VERSION}', lambda value: type(value) is int and 1 <= value <= VERSION),
    task=NAME,
    classes=Rule('a list of at least one name', lambda value: (
        isinstance(value, list) and value != [] and all(map(NAME.holds, value)))),
    fingerprint=Rule(f'{2 * LENGTH} hexadecimal digits', lambda value: (
        isinstance(value, str) and len(value) == 2 * LENGTH and set(value) <= set('0123456789abcdef'))),
    checkpoint=TEXT, backbone=OBJECT, preprocessing=OBJECT, recipe=TEXT,
    metrics=Rule('finite numbers by name', lambda value: (
        isinstance(value, dict) and all(map(is_number, value.values())))),
    versions=Rule('texts by name', lambda value: isinstance(value, dict) and all(map(TEXT.holds, value.values()))))


def check_header(names: Collection[str], metadata: Mapping[str, str]) -> None:
    """Raise ValueError if a safetensors file is no pack.

    Args:
        names (Collection[str]): Of its tensors.
        metadata (Mapping[str, str]): Name -> text.
    """
    if CARD not in metadata:
        raise ValueError(f'a pack must have {CARD} among its metadata: it is no pack, make one with '
                         'python tools/pack.py export')
    known = {PROMPTS, SCALE, GATE, WEIGHT, BIAS, PROMPTS_1, GATE_LOGITS_1, TEMPERATURES_1}
    if set(names) - known or not {WEIGHT, BIAS} <= set(names):
        raise ValueError(f'a pack must hold {WEIGHT}, {BIAS} and, if there are prompts, {PROMPTS} (with {SCALE} and '
                         f'{GATE} if there are such), got {shown(", ".join(sorted(names)))}: {REMEDY}')


@dataclass(frozen=True, eq=False)
class Pack:
    """What was tuned for one task, and what is needed to use it.

    Args:
        task: Name of the task.
        classes: A name for each output of the head.
        prompts: Folded prompt tokens, (L, N_p, D) if deep, (1, N_p, D) if shallow; None for a linear probe.
        weight: Of the linear head, (classes, D).
        bias: Of the linear head, (classes, ).
        backbone: How the frozen backbone is built.
        fingerprint: Of the frozen backbone, uint8, (32, ), see :meth:`.FrozenViT.fingerprint`.
        preprocessing: How an image becomes the backbone's input.
        logit_scale: Factor of each block's attention logits, (L,); None is 1.
        gate: Share of what a block makes of prompts that goes on, (L - 1,); None is 1.
        checkpoint: File name or address of the backbone's checkpoint: a hint for people, nothing reads it.
        recipe: Text of the config that it was tuned with: for people, nothing runs it.
        metrics: Name -> value, as tested.
        versions: Package -> version that it was exported with.

    Raises:
        ValueError: A field against its rule, or parts that do not fit each other.
    """
    task: str
    classes: tuple[str, ...]
    prompts: Tensor | None
    weight: Tensor
    bias: Tensor
    backbone: Architecture
    fingerprint: Tensor
    preprocessing: Preprocessing
    logit_scale: Tensor | None = None
    gate: Tensor | None = None
    checkpoint: str = ''
    recipe: str = ''
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self._card(), RULES, 'a pack', REMEDY)
        classes, width = len(self.classes), self.backbone.embed_dims
        layers = self.backbone.num_layers
        expected = {PROMPTS: self.backbone.prompts_shape, SCALE: None if self.logit_scale is None else (layers, ),
                    GATE: None if self.gate is None else (layers - 1, ), WEIGHT: (classes, width), BIAS: (classes, )}
        tensors = self.tensors()
        for name, shape in expected.items():
            tensor = tensors.get(name)
            found = None if tensor is None else tuple(tensor.shape)
            if found != shape:
                raise ValueError(f"a pack's {name} must be {'absent' if shape is None else shape} for its backbone and "
                                 f"{classes} class names, got {'none' if found is None else found}: {REMEDY}")
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES or not tensor.isfinite().all():
                raise ValueError(f"a pack's {name} must be finite numbers of {', '.join(map(str, DTYPES))}, got "
                                 f'{tensor.dtype if tensor.dtype not in DTYPES else "NaN or infinity"}: {REMEDY}')
        if self.preprocessing.size != self.backbone.img_size:
            raise ValueError(f"a pack's preprocessing must end at the backbone's img_size {self.backbone.img_size}, "
                             f'got {self.preprocessing.size}: {REMEDY}')

    def tensors(self) -> dict[str, Tensor]:
        """The weights, named as in the file."""
        named = {PROMPTS: self.prompts, SCALE: self.logit_scale, GATE: self.gate, WEIGHT: self.weight, BIAS: self.bias}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def folded(self, like: Tensor | None = None) -> FoldedPrompts | None:
        """The prompts as blocks read them, in the dtype and on the device of a tensor if one is given."""
        if self.prompts is None:
            return None
        def moved(part: Tensor | None) -> Tensor | None:
            return part if part is None or like is None else part.to(like)

        return FoldedPrompts(self.prompts if like is None else self.prompts.to(like), moved(self.logit_scale),
                             moved(self.gate))

    @property
    def nbytes(self) -> int:
        """Bytes of the tuned weights."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def _card(self) -> dict[str, Any]:
        return dict(
            version=VERSION, task=self.task, classes=list(self.classes), fingerprint=to_hex(self.fingerprint),
            checkpoint=self.checkpoint, backbone=self.backbone.to_json(), preprocessing=self.preprocessing.to_json(),
            recipe=self.recipe, metrics=dict(self.metrics), versions=dict(self.versions))

    def save(self, path: str | os.PathLike) -> None:
        """Write the pack atomically; OSError if that fails."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
        card = json.dumps(self._card(), ensure_ascii=False)
        write_bytes(os.fspath(path), safetensors.torch.save(tensors, {CARD: card}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'Pack':
        """Read a pack.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no pack, or a damaged one.
        """
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise FileNotFoundError(f"a pack must be a file, but '{name}' is none: make one with python tools/pack.py "
                                    'export')
        try:
            return cls.from_file(*read_safetensors(name))
        except Exception as error:  # safetensors raises what torch does, which differs from version to version
            raise ValueError(f"pack '{plain(name)}' is refused: {plain(str(error)):.500}") from error

    @classmethod
    def from_file(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> 'Pack':
        """Make a pack of a safetensors file's tensors and metadata; ValueError if they are none, or damaged."""
        check_header(tensors, metadata)
        try:
            content = json.loads(metadata[CARD])
        except (RecursionError, ValueError) as error:
            raise ValueError(f"a pack's {CARD} must be JSON, but {error!s:.100}: {REMEDY}") from error
        card = check_fields(content, RULES, 'a pack', REMEDY)
        if card['version'] == 1:
            tensors = _fold_version_1(tensors)
        return cls(
            task=card['task'], classes=tuple(card['classes']), prompts=tensors.get(PROMPTS), weight=tensors[WEIGHT],
            bias=tensors[BIAS], logit_scale=tensors.get(SCALE), gate=tensors.get(GATE),
            backbone=Architecture.from_json(card['backbone']),
            fingerprint=torch.tensor(list(bytes.fromhex(card['fingerprint'])), dtype=torch.uint8),
            preprocessing=Preprocessing.from_json(card['preprocessing']), checkpoint=card['checkpoint'],
            recipe=card['recipe'], metrics=card['metrics'], versions=card['versions'])

    def checkpoint_content(self) -> dict[str, Any]:
        """Return the pack as a checkpoint of MMEngine: with it ``get_model`` and ``load_from`` take packs.

        The fingerprint stands for the frozen weights: :class:`.FrozenViT` reads these from its ``init_cfg`` and
        compares. ``meta`` brings the class names.
        """
        return dict(state_dict=self.tuned_weights() | {f'backbone.{FINGERPRINT}': self.fingerprint},
                    meta=dict(dataset_meta=dict(classes=self.classes)))

    def tuned_weights(self) -> dict[str, Tensor]:
        """The weights as :class:`.PromptedViT` and MMPretrain's classifier load them: folded, with their reading."""
        folded = self.folded()
        prompts = {} if folded is None else {f'backbone.{FOLDED}{name}': part
                                             for name, part in folded._asdict().items() if part is not None}
        return prompts | {f'backbone.{READING}': Reading.of(self.backbone).to_tensor(), WEIGHT: self.weight,
                          BIAS: self.bias}


def _fold_version_1(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a pack of version 1; fold its gates and temperatures as GatedPrompts does."""
    tensors = dict(tensors)
    for old, new, fold in ((PROMPTS_1, PROMPTS, lambda tokens: tokens), (GATE_LOGITS_1, GATE, torch.sigmoid),
                           (TEMPERATURES_1, SCALE, lambda values: values.clamp(*TEMPERATURES).reciprocal())):
        if old in tensors:
            tensors[new] = fold(tensors.pop(old))
    return tensors
