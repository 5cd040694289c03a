"""Read safetensors files from strangers: the format holds numbers alone, but names how many."""
from collections.abc import Callable, Collection, Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

HEADER_MEMORY = 25
"""Bytes of memory that a byte of the header may take: an entry of 60 bytes makes a tensor."""
PACK_CARD = 'mmspt_pack'
"""Name of the metadata that makes a file a prompt pack (:mod:`mmspt.packs.pack`)."""


def read_safetensors(filename: str, map_location: Any = None,
                     charge: Callable[[int], None] = lambda size: None,
                     check: Callable[[Collection[str], Mapping[str, str]], None] = lambda names, metadata: None,
                     ) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata.

    Args:
        filename (str): A local path.
        map_location: As for :func:`torch.load`; other than a device it is the CPU.
        charge (Callable): Told how many bytes the header's objects may take before they are made; may raise.
        check (Callable): Told the tensors' names and the metadata before a tensor is made; may raise.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: Both by name.

    Raises:
        OSError, SafetensorError, ValueError: It cannot be read, is damaged, or of another format.
    """
    with open(filename, 'rb') as file:
        header = int.from_bytes(file.read(8), 'little')
        size = file.seek(0, 2)
    if header > size:
        raise ValueError('a safetensors file must begin with the length of its header, which would be '
                         f'{header:,} bytes of {size:,}: it is another file, or damaged')
    charge(HEADER_MEMORY * header)
    with safe_open(filename, 'pt') as opened:
        metadata = opened.metadata() or {}
        check(opened.keys(), metadata)
    content = safetensors.torch.load_file(filename)
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    # out of the map, through which a file that is written anew would change weights or end the process
    return {key: content.pop(key).to(device, copy=True) for key in list(content)}, metadata
