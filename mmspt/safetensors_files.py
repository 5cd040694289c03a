"""Read safetensors files."""
import os
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

PACK_CARD = 'mmspt_pack'
"""Name of the metadata that makes a file a prompt pack (:mod:`mmspt.packs.pack`)."""


def read_safetensors(filename: str | os.PathLike, map_location: Any = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors and the metadata, both by name.

    Args:
        filename (str | os.PathLike): A local path.
        map_location: A device; anything else that :func:`torch.load` takes is the CPU.

    Raises:
        OSError, SafetensorError: The file cannot be read, is damaged, or of another format.
    """
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    with safe_open(filename, 'pt') as file:
        # copied out of the file's map: a file that is overwritten later would change the weights
        tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
