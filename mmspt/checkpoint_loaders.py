"""Files that MMEngine cannot load, added to its ``CheckpointLoader`` by ``import mmspt``.

These are safetensors (prompt packs among them), public checkpoints that are not there yet, and files by address, of
which MMEngine takes two of one name for one.
MMEngine tries the regular expressions of all loaders in reverse alphabetical order, on the beginning of a path.
"""
import json
import os.path as osp
import re
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmspt.hub import SCHEMES, local_path
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS, fetch, find_checkpoint

LOCAL = rf'(?!.*://)(.*\.safetensors(\.index\.json)?|.*\.npz|(.*/)?({"|".join(map(re.escape, PUBLIC_CHECKPOINTS))}))$'
ADDRESS = 'https?://'


PACK_CARD = 'mmspt_pack'
"""Name of the metadata that makes a file of safetensors a prompt pack (:mod:`mmspt.packs.pack`)."""


def read_safetensors(filename: str, map_location: Any = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors and the metadata of a local file, both by name.

    Args:
        filename (str): Its path.
        map_location: A device; anything else that :func:`torch.load` takes is the CPU.

    Raises:
        OSError, SafetensorError: The file cannot be read, is damaged, or of another format.
    """
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    with safe_open(filename, 'pt') as file:
        # copied out of the file's map: a file that is overwritten later would change the weights
        tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def read_shards(filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """Return all tensors of a model that transformers saved in parts, whose index is ``filename``.

    Raises:
        RuntimeError: The index, or a part that it names, is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with open(filename, encoding='utf-8') as file:
            parts = json.load(file)['weight_map']
        for part in dict.fromkeys(parts.values()):
            own, _ = read_safetensors(osp.join(osp.dirname(filename), osp.basename(part)), map_location)
            tensors |= own
    except (AttributeError, KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise RuntimeError(f"checkpoint '{filename}' cannot be read: it must be the index of a model in parts, which "
                           f'lie beside it, but {type(error).__name__}: {error!s:.300}. Fetch them all') from error
    if tensors.keys() != parts.keys():
        raise RuntimeError(f"checkpoint '{filename}' must name the weights of its parts, but they differ in "
                           f'{sorted(tensors.keys() ^ parts.keys())[:3]}: fetch all parts again')
    return tensors


def load_from_mmspt(filename: str, map_location: Any = None) -> dict:
    """Load a local checkpoint of safetensors, or a public one, see :func:`.find_checkpoint`.

    Raises:
        FileNotFoundError: There is no such file, and none can be fetched.
        RuntimeError: The file is damaged or of another format.
    """
    path = find_checkpoint(filename)
    if path.endswith('.npz'):
        raise RuntimeError(
            f"checkpoint '{filename}' must hold weights of PyTorch, but .npz holds those of JAX: use model.safetensors "
            'of https://huggingface.co/timm/vit_base_patch16_224.orig_in21k for imagenet21k/ViT-B_16.npz (VPT), of '
            'https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k for augreg/B_16-i21k-....npz')
    if path.endswith('.index.json'):
        return read_shards(path, map_location)
    if not path.endswith('.safetensors'):
        return load_from_local(path, map_location)
    try:
        tensors, metadata = read_safetensors(path, map_location)
        if PACK_CARD not in metadata:
            return tensors
        from mmspt.packs.pack import Pack  # knows models, which `import mmspt` does without
        return Pack.from_file(tensors, metadata).checkpoint_content()
    except (SafetensorError, ValueError) as error:
        raise RuntimeError(f"checkpoint '{filename}' cannot be read: it must be a complete file of safetensors, but "
                           f'{error!s:.500}. Remove it, and fetch or copy it again') from error


def load_from_mmspt_http(filename: str, map_location: Any = None) -> dict:
    """Fetch a checkpoint into torch's hub folder and load it, see :func:`.fetch` and :func:`load_from_mmspt`.

    Raises:
        OSError: It cannot be fetched.
    """
    url, md5 = next((known for known in PUBLIC_CHECKPOINTS.values() if known.url == filename), (filename, None))
    try:
        path = fetch(url, md5)
    except (OSError, ValueError) as error:
        raise OSError(f"checkpoint '{filename}' cannot be fetched ({error}): name another address, or a file that was "
                      'fetched elsewhere') from error
    return load_from_mmspt(path, map_location)


def load_from_mmspt_hub(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint from the Hugging Face hub, see :func:`mmspt.hub.local_path`."""
    return load_from_mmspt(local_path(filename), map_location)


def load_file(path: str) -> dict:
    """Load a checkpoint onto the CPU by MMEngine's ``CheckpointLoader``, silently.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is damaged, of another format, or holds more than a checkpoint may; it is named.
    """
    try:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises more kinds than its documentation says
        found = re.search(r'WeightsUnpickler error: (.*?)(\. |\n|$)', str(error))
        if found:  # torch goes on to say how to run what the file holds
            raise RuntimeError(f"checkpoint '{path}' cannot be read: it must hold tensors and numbers alone, and "
                               f'nothing is unpickled ({found[1]:.200}). Where you trust the file, save the state_dict '
                               'of what it holds, and name that') from error
        raise RuntimeError(f"checkpoint '{path}' cannot be read: {error!s:.500}") from error


def register_schemes() -> None:
    """Add the loaders."""
    CheckpointLoader.register_scheme(LOCAL, load_from_mmspt)
    CheckpointLoader.register_scheme(ADDRESS, load_from_mmspt_http)
    CheckpointLoader.register_scheme(SCHEMES, load_from_mmspt_hub)
