"""Checkpoints from strangers: what MMEngine saves, and objects whose unpickling would run code."""
import io
import zipfile
from argparse import Namespace

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

IS_FORK = hasattr(checkpoint, 'get_torch_safe_globals')


class Call:
    """Pickles as a call: ``Call(function, *args)``."""

    def __init__(self, function, *args):
        self.reduce = function, args

    def __reduce__(self):
        return self.reduce


def mmengine_checkpoint():
    """What Runner.save_checkpoint writes, optimizer and buffers of the message hub included."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    buffer = HistoryBuffer()
    buffer.update(1.5)
    buffer.update(np.float64(2.5))
    return dict(meta=dict(epoch=1, iter=3, seed=np.int64(3), cfg='a = 1', dataset_meta=dict(classes=['a', 'b'])),
                state_dict=model.state_dict(), optimizer=optimizer.state_dict(),
                message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info=dict(lr=np.float32(0.5))))


def assert_same(one, other):
    """Equal in types and, to the bit, in numbers."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.requires_grad == other.requires_grad and torch.equal(one, other)
    elif isinstance(one, (HistoryBuffer, Namespace)):
        for name in set(vars(one)) | set(vars(other)) - {'statistics_methods'}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


def saved(content, **kwargs) -> bytes:
    """torch.save to bytes."""
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def entries(data: bytes) -> dict[str, bytes]:
    """Name -> content of a zip file's entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(contents: dict[str, bytes]) -> bytes:
    """A zip file with right check sums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()
