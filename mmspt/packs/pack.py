"""The prompt pack: what was tuned for a task, in one small file, without the backbone."""
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mmspt.checkpoint_loaders import PACK_CARD as CARD
from mmspt.checkpoint_loaders import read_safetensors
from mmspt.files import write_bytes
from mmspt.hub import PACK, local_path
from mmspt.models.backbones.prompted_vit import FOLDED
from mmspt.models.backbones.reading import KEY as READING
from mmspt.models.backbones.reading import PREPROCESSING, Reading, to_tensor
from mmspt.models.methods import FoldedPrompts
from mmspt.models.methods.gated_prompts import TEMPERATURES
from mmspt.models.weights.fingerprint import KEY as FINGERPRINT
from mmspt.models.weights.fingerprint import check_fingerprint, to_hex

from .architecture import Architecture
from .fields import check_fields, plain, shown
from .preprocessing import Preprocessing

VERSION = 2
"""1 lists transforms in place of the fields of preprocessing, and gates and temperatures as GateVPT tunes them; it is
read, too."""
PROMPTS, SCALE, GATE = 'prompts', 'logit_scale', 'gate'
WEIGHT, BIAS = 'head.fc.weight', 'head.fc.bias'
PROMPTS_1, GATE_LOGITS_1, TEMPERATURES_1 = 'backbone.prompts', 'backbone.gate_logits', 'backbone.temperatures'
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REMEDY = 'the file is damaged or from another program: fetch it again, or export it anew'

CARD_TYPES: dict[str, Any] = dict(
    version=int, task=str, classes=tuple[str, ...], fingerprint=str, checkpoint=str, backbone=dict, preprocessing=dict,
    recipe=str, metrics=Mapping[str, float], versions=Mapping[str, str])
TENSORS = {PROMPTS, SCALE, GATE, WEIGHT, BIAS, PROMPTS_1, GATE_LOGITS_1, TEMPERATURES_1}


@dataclass(frozen=True, eq=False)
class Pack:
    """What was tuned for one task, and what is needed to use it.

    Args:
        task: Name of the task.
        classes: A name for each output of the head.
        prompts: Folded prompt tokens, (L, N_p, D) if deep, (1, N_p, D) if shallow; None for a linear probe.
        weight: Of the linear head, (classes, D), or (classes, 2 D) where it reads CLS and the mean of patches.
        bias: Of the linear head, (classes, ).
        backbone: How the frozen backbone is built.
        fingerprint: Of the frozen backbone, uint8, (32, ), see :meth:`.FrozenViT.fingerprint`.
        preprocessing: How an image becomes the backbone's input.
        logit_scale: Factor of each block's attention logits, (L,); None is 1.
        gate: Share of what a block makes of prompts that goes on, (L - 1,); None is 1.
        checkpoint: File name or address of the backbone's checkpoint, see :func:`.find_source`.
        recipe: Text of the config that it was tuned with: for people, nothing runs it.
        metrics: Name -> value, as tested.
        versions: Package -> version that it was exported with.

    Raises:
        ValueError: Parts that do not fit each other, or weights that are not finite.
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
        check_fingerprint(self.fingerprint)
        classes, width = len(self.classes), self.backbone.feature_dims
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
        folded = FoldedPrompts(self.prompts, self.logit_scale, self.gate)
        if like is None:
            return folded
        return FoldedPrompts(*(None if part is None else part.to(like) for part in folded))  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """Bytes of the tuned weights."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def save(self, path: str | os.PathLike) -> None:
        """Write the pack atomically; OSError if that fails, ValueError if a metric is not finite."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
        card = dict(
            version=VERSION, task=self.task, classes=self.classes, fingerprint=to_hex(self.fingerprint),
            checkpoint=self.checkpoint, backbone=asdict(self.backbone), preprocessing=asdict(self.preprocessing),
            recipe=self.recipe, metrics=dict(self.metrics), versions=dict(self.versions))
        text = json.dumps(card, ensure_ascii=False, allow_nan=False)
        write_bytes(os.fspath(path), safetensors.torch.save(tensors, {CARD: text}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'Pack':
        """Read a pack, a local file's or one on the Hugging Face hub (hf://ORG/NAME[@REVISION][/FILE]).

        Raises:
            FileNotFoundError: There is no such file.
            ImportError, OSError: See :func:`mmspt.hub.local_path`.
            ValueError: It is no pack, or a damaged one.
        """
        name = local_path(os.fspath(path), (PACK, ), ())
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
        if CARD not in metadata:
            raise ValueError(f'a pack must have {CARD} among its metadata: it is no pack, make one with '
                             'python tools/pack.py export')
        if set(tensors) - TENSORS or not {WEIGHT, BIAS} <= set(tensors):
            raise ValueError(f'a pack must hold {WEIGHT}, {BIAS} and, if there are prompts, {PROMPTS} (with {SCALE} '
                             f'and {GATE} if there are such), got {shown(", ".join(sorted(tensors)))}: {REMEDY}')
        try:
            card = check_fields(json.loads(metadata[CARD]), CARD_TYPES, 'a pack', REMEDY)
            fingerprint = torch.tensor(list(bytes.fromhex(card.pop('fingerprint'))), dtype=torch.uint8)
        except (RecursionError, ValueError) as error:
            raise ValueError(f"a pack's {CARD} cannot be read: {error!s:.300}: {REMEDY}") from error
        version = card.pop('version')
        if version not in (1, VERSION):
            raise ValueError(f"a pack's version must be 1 or {VERSION}, got {version}: update mmspt")
        if version == 1:
            tensors = _fold_version_1(tensors)
        return cls(
            **card | dict(backbone=Architecture.from_json(card['backbone']),
                          preprocessing=Preprocessing.from_json(card['preprocessing'])),
            fingerprint=fingerprint, prompts=tensors.get(PROMPTS), weight=tensors[WEIGHT], bias=tensors[BIAS],
            logit_scale=tensors.get(SCALE), gate=tensors.get(GATE))

    def checkpoint_content(self) -> dict[str, Any]:
        """Return the pack as a checkpoint of MMEngine: with it ``get_model`` and ``load_from`` take packs.

        The fingerprint stands for the frozen weights: :class:`.FrozenViT` reads these from its ``init_cfg`` and
        compares. ``meta`` brings the class names and, as the weights do, the preprocessing.
        """
        preprocessing = asdict(self.preprocessing)
        marks = {f'backbone.{FINGERPRINT}': self.fingerprint, f'backbone.{PREPROCESSING}': to_tensor(preprocessing)}
        return dict(state_dict=self.tuned_weights() | marks,
                    meta=dict(dataset_meta=dict(classes=self.classes), preprocessing=preprocessing))

    def tuned_weights(self) -> dict[str, Tensor]:
        """The weights as :class:`.PromptedViT` and MMPretrain's classifier load them: folded, with their reading."""
        folded = self.folded()
        prompts = {} if folded is None else {f'backbone.{FOLDED}{name}': part
                                             for name, part in folded._asdict().items() if part is not None}
        return prompts | {f'backbone.{READING}': Reading.of(self.backbone).to_tensor(), WEIGHT: self.weight,
                          BIAS: self.bias}


def _fold_version_1(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a pack of version 1; fold its gates and temperatures as GatedPrompts does, in fp32."""
    tensors = dict(tensors)
    for old, new, fold in ((PROMPTS_1, PROMPTS, lambda tokens: tokens), (GATE_LOGITS_1, GATE, torch.sigmoid),
                           (TEMPERATURES_1, SCALE, lambda values: values.clamp(*TEMPERATURES).reciprocal())):
        if old in tensors:
            given = tensors.pop(old)
            tensors[new] = fold(given if new == PROMPTS else given.float())
    return tensors
