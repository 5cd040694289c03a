"""Export a tuned model as one file for other programs, ONNX or torch.export's .pt2, and compare it with PyTorch."""
import importlib.util
import json
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
MAX_BATCH = 2**16 - 1
ONNX_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')


class Exported(NamedTuple):
    """The result of an export."""
    paths: list[str]
    """The file, and for large ONNX models the one with the weights, which must stay beside it."""
    num_bytes: int
    """Of all files."""
    difference: float
    """See :func:`check`."""


def export(model: ImageClassifier, out: str, classes: Sequence[str] | None = None,
           say: Callable[[str], object] = lambda step: None, size: tuple[int, int] | None = None) -> Exported:
    """Write a tuned model and :func:`check` the file; one that fails does not reach ``out``.

    The file maps ``images`` (B, 3, H, W), float32, RGB, 0 to 255, to ``logits`` (B, C), for any B up to 65,535 and the
    H and W that are given. ONNX's ``metadata_props``, or the extra file ``mmspt.json`` of a .pt2, hold
    the text of :func:`describe`. Weights of more than 2 GB go into ``<out>.data`` beside an .onnx file.

    Args:
        model (ImageClassifier): See :class:`.FoldedModel`.
        out (str): The file; .onnx or .pt2 tells the format.
        classes (Sequence[str] | None): Names of the classes. Defaults to None.
        say (Callable): Is told each step. Defaults to nobody.
        size (tuple[int, int] | None): (H, W); None is the backbone's ``img_size``.

    Raises:
        ImportError: The extra `onnx` is not installed, and ``out`` is .onnx.
        OSError: The file cannot be written.
        ValueError: ``out`` ends otherwise, or the model cannot be folded, or has another number of classes.
        RuntimeError: The file does not give the model's logits.
    """
    kind = find_kind(out)
    folded = FoldedModel(model, size).cpu()
    notes = describe(folded, classes)
    folder, name = osp.split(osp.realpath(out))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{name[:100]}.', suffix='.tmp', dir=folder) as staging:
        file = osp.join(staging, name)
        say(f'recording and writing {out}')
        kind.write(record(folded), file, notes)
        say(f'comparing {out} with PyTorch')
        difference = check(file, model, size)
        names = sorted(os.listdir(staging), key=len)
        for written in reversed(names):  # the graph after its weights
            os.replace(osp.join(staging, written), osp.join(folder, written))
    paths = [osp.join(osp.dirname(out), name) for name in names]
    return Exported(paths, sum(map(osp.getsize, paths)), difference)


def record(folded: FoldedModel) -> ExportedProgram:
    """Record a folded model on the CPU as a graph."""
    images = torch.zeros(2, *folded.image_shape)  # torch.export takes sizes of 1 for constants
    batch = torch.export.Dim('batch', min=1, max=MAX_BATCH)
    program = torch.export.export(folded, (images, ), strict=False, dynamic_shapes=dict(images={0: batch}))
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths on this machine
    return program


def describe(folded: FoldedModel, classes: Sequence[str] | None = None) -> dict[str, str]:
    """Return the facts that a file's reader must know, each value in JSON; ValueError if names do not fit classes."""
    if classes is not None and len(classes) != folded.num_classes:
        raise ValueError(f'there must be a name for each of the {folded.num_classes} classes, got {len(classes)}: give '
                         'the names that the head was trained with, or none')
    channels, height, width = folded.image_shape
    notes: dict[str, object] = dict(
        mmspt_version=__version__, image_size=[height, width], normalization='part of the graph',
        pixels=f'{"RGB" if channels == 3 else f"{channels} channels"}, 0 to 255, float32')
    if classes is not None:
        notes['class_names'] = list(classes)
    return {name: json.dumps(value) for name, value in notes.items()}


def check(path: str, model: ImageClassifier, size: tuple[int, int] | None = None) -> float:
    """Compare a file with the model it was made of, on the CPU, on batches of 1, 2, 3 and 5 images.

    Logits differ by rounding, in proportion to the largest of them: the unit is an image's largest ``|logit|``, and 1
    if that is smaller. ONNX runs in onnxruntime, .pt2 in torch.

    Args:
        path (str): An .onnx or .pt2 file of our own making: torch.export.load unpickles.
        model (ImageClassifier): In any mode, which stays.
        size (tuple[int, int] | None): (H, W); None is the backbone's ``img_size``.

    Returns:
        float: The greatest difference, in these units.

    Raises:
        RuntimeError: It exceeds 1e-4.
    """
    kind = find_kind(path)
    reference = share(model).eval().cpu()
    shape = FoldedModel(reference, size).image_shape
    run = kind.load(path)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for count in BATCH_SIZES:
        images = random_images(count, shape, generator)
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


def _write_onnx(program: ExportedProgram, path: str, notes: Mapping[str, str]) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, of torch
        graph = torch.onnx.export(program, dynamo=True, input_names=['images'], output_names=['logits'], verbose=False)
    assert graph is not None
    ClearMetadataAndDocStringPass()(graph.model)  # paths on this machine
    graph.model.metadata_props.update(notes)
    graph.save(path, external_data=sum(tensor.nbytes for tensor in program.state_dict.values()) > ONE_FILE)


def _load_onnx(path: str) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(['logits'], dict(images=images.numpy()))[0])


def _write_program(program: ExportedProgram, path: str, notes: Mapping[str, str]) -> None:
    torch.export.save(program, path, extra_files={'mmspt.json': json.dumps(notes)})


def _load_program(path: str) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, of torch
        module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)
    return run


class Kind(NamedTuple):
    """A format: how a graph and its notes are written, and how a file is loaded as a function of images."""
    write: Callable[[ExportedProgram, str, Mapping[str, str]], None]
    load: Callable[[str], Callable[[Tensor], Tensor]]


KINDS = {'.onnx': Kind(_write_onnx, _load_onnx), '.pt2': Kind(_write_program, _load_program)}


def find_kind(path: str) -> Kind:
    """Return the format of a file's ending; ValueError if there is none, ImportError if its packages are missing."""
    ending = osp.splitext(path)[1]
    if ending not in KINDS:
        raise ValueError(f"the file must end in {' or '.join(KINDS)}, got '{path}': the ending tells the format")
    missing = [name for name in ONNX_PACKAGES if ending == '.onnx' and importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'ONNX needs {", ".join(ONNX_PACKAGES)}, and {", ".join(missing)} cannot be found: '
                          "pip install 'mmspt[onnx]', or export to .pt2")
    return KINDS[ending]
