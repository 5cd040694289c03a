"""The fingerprint of a frozen backbone, by which what was tuned on it finds it again."""
import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

KEY = 'fingerprint'
"""Name under which a backbone's state dict carries it in place of the frozen weights."""
LENGTH = 32


def fingerprint(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    """SHA-256 of weights, named, in fp32, and of what they are computed with.

    Half-precision numbers are exact in fp32, so a checkpoint in half precision and the model that loaded it agree.

    Args:
        weights (Mapping[str, Tensor]): Name -> weight, in any order.
        settings (Mapping[str, Any]): Whatever else changes the numbers that come out, as JSON can write it.

    Returns:
        Tensor: uint8, (32, ), on the CPU.
    """
    names = sorted(weights)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # hashlib lets other threads run
        digests = threads.map(lambda name: _digest(weights[name]), names)
    shapes = [(name, list(weights[name].shape), digest) for name, digest in zip(names, digests, strict=True)]
    text = json.dumps([shapes, dict(settings)], sort_keys=True)
    return torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)


def _digest(weight: Tensor) -> str:
    plain = weight.detach().to('cpu', torch.float32).contiguous()
    return hashlib.sha256(plain.numpy().data).hexdigest()


def to_hex(value: Tensor) -> str:
    """Write a fingerprint as 64 hexadecimal digits."""
    return bytes(value.tolist()).hex()


def check_fingerprint(value: Tensor) -> Tensor:
    """Return a fingerprint that came with a file; ValueError if it is none."""
    if value.dtype != torch.uint8 or value.shape != (LENGTH, ):
        raise ValueError(f'a fingerprint must be {LENGTH} bytes, got {tuple(value.shape)} of {value.dtype}: the file '
                         'is damaged, use another')
    return value.cpu()
