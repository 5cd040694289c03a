"""A tuned model as one file for other programs: ONNX, or torch.export's .pt2; each is compared with PyTorch."""
import importlib.util
import json
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.utils import digit_version
from mmpretrain.models import ImageClassifier
from torch import Tensor
from torch.export import ExportedProgram

from mmspt.version import __version__

from .folded import FoldedModel, share

TOLERANCE = 1e-4
"""Of a logit, in units of the image's largest logit, or of 1 where all are smaller."""
BATCH_SIZES = (1, 2, 3, 5)
ONE_FILE = 2**31 - 2**24
"""Bytes of weights that an .onnx file holds itself: a protobuf ends at 2 GiB, and the graph needs some room."""
NEEDS_TORCH = '2.5'  # with the ONNX exporter that takes an exported program
MAX_BATCH = 2**16 - 1
ONNX_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')


class Exported(NamedTuple):
    """What was written."""
    paths: list[str]
    """The file, and for large ONNX models the one with the weights, which must stay beside it."""
    num_bytes: int
    """Of all."""
    difference: float
    """See :func:`check`."""


def to_exported_program(model: ImageClassifier) -> ExportedProgram:
    """Record a tuned model, prompts folded in, as a graph.

    Args:
        model (ImageClassifier): See :class:`.FoldedModel`.

    Returns:
        ExportedProgram: From ``images`` (B, 3, H, W), float32, RGB, 0 to 255, to logits (B, C), for any B up to 65,535
        and the H and W that the model was built for; on the CPU.

    Raises:
        ValueError: The model cannot be folded.
        RuntimeError: This torch is too old.
    """
    if digit_version(torch.__version__) < digit_version(NEEDS_TORCH):
        raise RuntimeError(f'an export needs torch {NEEDS_TORCH} or later, got {torch.__version__}: export in another '
                           'environment; checkpoints can be read there')
    folded = FoldedModel(model).cpu()
    images = torch.zeros(2, *folded.image_shape)  # torch.export takes sizes of 1 for constants
    batch = torch.export.Dim('batch', min=1, max=MAX_BATCH)
    program = torch.export.export(folded, (images, ), strict=False, dynamic_shapes=dict(images={0: batch}))
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths on this machine
    return program


def save_program(model: ImageClassifier, path: str, classes: Sequence[str] | None = None,
                 fingerprint: str | None = None) -> None:
    """Write :func:`to_exported_program` by ``torch.export.save``, :func:`describe`'s text as extra file ``mmspt.json``.

    Args:
        model (ImageClassifier): See :class:`.FoldedModel`.
        path (str): The .pt2 file, which is written beside and renamed.
        classes (Sequence[str] | None): Names of the classes. Defaults to None.
        fingerprint (str | None): Whatever tells this model from others. Defaults to None.

    Raises:
        ValueError: The model cannot be folded, or has another number of classes.
        RuntimeError: This torch is too old.
    """
    notes = json.dumps(describe(model, classes, fingerprint))
    program = to_exported_program(model)
    with beside(path) as file:
        torch.export.save(program, file, extra_files={'mmspt.json': notes})


def to_onnx(model: ImageClassifier, path: str, classes: Sequence[str] | None = None,
            fingerprint: str | None = None) -> None:
    """Write a tuned model, prompts folded in, as ONNX: input ``images``, output ``logits``, first axes ``batch``.

    What :func:`describe` tells stands in ``metadata_props``. Weights of more than 2 GB go into ``<path>.data``.

    Args:
        model (ImageClassifier): See :class:`.FoldedModel`.
        path (str): The .onnx file, which is written beside and renamed.
        classes (Sequence[str] | None): Names of the classes. Defaults to None.
        fingerprint (str | None): Whatever tells this model from others. Defaults to None.

    Raises:
        ImportError: The extra `onnx` is not installed.
        ValueError: The model cannot be folded, or has another number of classes.
        RuntimeError: This torch is too old.
    """
    require_onnx()
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    notes = describe(model, classes, fingerprint)
    program = to_exported_program(model)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, of torch
        graph = torch.onnx.export(program, dynamo=True, input_names=['images'], output_names=['logits'], verbose=False)
    assert graph is not None
    ClearMetadataAndDocStringPass()(graph.model)  # paths on this machine
    graph.model.metadata_props.update(notes)
    with beside(path) as file:
        graph.save(file, external_data=weight_bytes(program) > ONE_FILE)


def weight_bytes(program: ExportedProgram) -> int:
    """Bytes of the parameters and constants of a graph."""
    return sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())


def describe(model: ImageClassifier, classes: Sequence[str] | None = None,
             fingerprint: str | None = None) -> dict[str, str]:
    """Say what a file's reader must know of the model, each value in JSON.

    Raises:
        ValueError: The model cannot be folded, or has another number of classes.
    """
    folded = FoldedModel(model)
    if classes is not None and len(classes) != folded.num_classes:
        raise ValueError(f'there must be a name for each of the {folded.num_classes} classes, got {len(classes)}: give '
                         'the names that the head was trained with, or none')
    channels, height, width = folded.image_shape
    notes: dict[str, object] = dict(
        mmspt_version=__version__,
        image_size=[height, width],
        pixels=f'{"RGB" if channels == 3 else f"{channels} channels"}, 0 to 255, float32',
        normalization='part of the graph')
    if classes is not None:
        notes['class_names'] = list(classes)
    if fingerprint is not None:
        notes['fingerprint'] = fingerprint
    return {name: json.dumps(value) for name, value in notes.items()}


def check(path: str, model: ImageClassifier, batch_sizes: Sequence[int] = BATCH_SIZES) -> float:
    """Compare a file with the model it was made of, prompts and preprocessing as in a test run, on the CPU.

    Logits differ by rounding, in proportion to the largest of them: the unit is the largest |logit| of an image, and 1
    if that is smaller. ONNX runs in onnxruntime, .pt2 in torch.

    Args:
        path (str): An .onnx or .pt2 file of our own making: torch.export.load unpickles.
        model (ImageClassifier): In any mode, which stays.
        batch_sizes (Sequence[int]): Sizes to try. Defaults to 1, 2, 3, 5.

    Returns:
        float: The greatest difference, in these units.

    Raises:
        RuntimeError: It exceeds 1e-4.
    """
    kind = find_kind(path)
    reference = share(model).eval().cpu()
    shape = FoldedModel(reference).image_shape
    run = kind.load(path)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in batch_sizes:
        images = random_images(size, shape, generator)
        raw = images.flip(1) if shape[0] == 3 else images  # MMPretrain reads BGR
        with torch.no_grad():
            expected = reference(reference.data_preprocessor(dict(inputs=raw))['inputs'])
        actual = run(images.float())
        if actual.shape != expected.shape:
            raise RuntimeError(f"'{path}' must give logits {tuple(expected.shape)}, got {tuple(actual.shape)}: please "
                               'report this')
        unit = expected.abs().amax(dim=1, keepdim=True).clamp(min=1.)
        differences.append(((actual - expected).abs() / unit).max())
    greatest = torch.stack(differences).max().item()  # NaN stays NaN
    if not greatest <= TOLERANCE:
        raise RuntimeError(f"logits of '{path}' must be those of PyTorch to {TOLERANCE:g} of the largest, got a "
                           f'difference of {greatest:.3g}: another version of torch or onnxruntime may help')
    return greatest


def random_images(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Draw uint8 images (count, 3, H, W) of soft colours with noise; no two look alike, as flat noise does to a ViT."""
    channels, height, width = shape
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    soft = F.interpolate(coarse, (height, width), mode='bilinear')
    return ((0.8 * soft + 0.2 * torch.rand(count, *shape, generator=generator)) * 255).to(torch.uint8)


def export(model: ImageClassifier, out: str, classes: Sequence[str] | None = None, fingerprint: str | None = None,
           say: Callable[[str], object] = lambda step: None) -> Exported:
    """Write a tuned model and :func:`check` what was written; a file that fails does not reach ``out``.

    Args:
        model (ImageClassifier): See :class:`.FoldedModel`.
        out (str): The file; .onnx or .pt2 tells the format.
        classes (Sequence[str] | None): Names of the classes. Defaults to None.
        fingerprint (str | None): Whatever tells this model from others. Defaults to None.
        say (Callable): Is told what is being done. Defaults to nobody.

    Raises:
        ImportError: The extra `onnx` is not installed, and ``out`` is .onnx.
        OSError: The file cannot be written.
        ValueError: ``out`` ends otherwise, or the model cannot be folded, or has another number of classes.
        RuntimeError: The file does not give the model's logits, or this torch is too old.
    """
    kind = find_kind(out)
    with beside(out) as file:
        say(f'recording and writing {out}')
        kind.write(model, file, classes, fingerprint)
        say(f'comparing {out} with PyTorch')
        difference = check(file, model)
        names = sorted(os.listdir(osp.dirname(file)), key=len)
    paths = [osp.join(osp.dirname(out), name) for name in names]
    return Exported(paths, sum(map(osp.getsize, paths)), difference)


@contextmanager
def beside(path: str) -> Iterator[str]:
    """Give a path in a new folder beside ``path``; what lies there in the end is renamed, ``path`` itself last."""
    folder, name = osp.split(osp.realpath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{name[:100]}.', suffix='.tmp', dir=folder) as staging:
        yield osp.join(staging, name)
        files = sorted(os.listdir(staging), key=lambda file: file == name)
        for file in files:
            with open(osp.join(staging, file), 'rb') as written:
                os.fsync(written.fileno())
        if len(files) > 1 and osp.isfile(osp.join(folder, name)):
            os.remove(osp.join(folder, name))  # an old graph must not be found with new weights
        for file in files:
            os.replace(osp.join(staging, file), osp.join(folder, file))


def require_onnx() -> None:
    """Raise ImportError if a package of the extra `onnx` is missing."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'ONNX needs {", ".join(ONNX_PACKAGES)}, and {", ".join(missing)} cannot be found: '
                          "pip install 'mmspt[onnx]', or export to .pt2")


def _load_onnx(path: str) -> Callable[[Tensor], Tensor]:
    require_onnx()
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(['logits'], dict(images=images.numpy()))[0])


def _load_program(path: str) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, of torch
        module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)
    return run


class Kind(NamedTuple):
    """A format."""
    write: Callable[[ImageClassifier, str, Sequence[str] | None, str | None], None]
    load: Callable[[str], Callable[[Tensor], Tensor]]


KINDS = {'.onnx': Kind(to_onnx, _load_onnx), '.pt2': Kind(save_program, _load_program)}


def find_kind(path: str) -> Kind:
    """Tell the format by the ending; ValueError if it is another, ImportError if its packages are missing."""
    ending = osp.splitext(path)[1]
    if ending not in KINDS:
        raise ValueError(f"the file must end in {' or '.join(KINDS)}, got '{path}': the ending tells the format")
    if ending == '.onnx':
        require_onnx()
    return KINDS[ending]
