"""Makes checkpoints that no torch.save would write, and reads them in processes of their own."""
import io
import json
import struct
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save as safetensors_save

from helpers import environment


class Call:
    """Pickles as a call: ``Call(function, *args)``, or with a state as ``__reduce__`` gives it."""

    def __init__(self, *reduce, state=None):
        self.reduce = (reduce[0], reduce[1:]) if state is None else (reduce[0], reduce[1:], state)

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


def zipped(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with right check sums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_pickle(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes of data.pkl, which must be there, in a zip file with right check sums."""
    contents = entries(data)
    name = next(name for name in contents if name.endswith('data.pkl'))
    assert old in contents[name]
    return zipped(contents | {name: contents[name].replace(old, new)})


def opcodes(body: bytes, **storages: bytes) -> bytes:
    """A zip checkpoint whose data.pkl is ``body`` of protocol 2."""
    return zipped({'archive/data.pkl': b'\x80\x02' + body + b'.', 'archive/byteorder': b'little',
                   'archive/version': b'3\n'}
                  | {f'archive/data/{key}': content for key, content in storages.items()})


def text(value: str) -> bytes:
    """Opcode of a text."""
    return b'X' + struct.pack('<I', len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    """Opcode of a global."""
    return f'c{module}\n{name}\n'.encode()


def under_a_key(value: bytes) -> bytes:
    """Opcodes of {'a': value}."""
    return b'}' + text('a') + value + b's'


def safetensors(header: bytes | dict, data: bytes = b'', length: int | None = None) -> bytes:
    """A safetensors file, right or not."""
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack('<Q', len(header) if length is None else length) + header + data


_READ = """
import json, os, resource, sys, time
import torch
from mmspt.checkpoint_files import load_from_local

def memory(field):
    return int(next(line for line in open('/proc/self/status') if line.startswith(field)).split()[1]) * 1024

warm, paths = sys.argv[1:4], sys.argv[4:]
for path in paths:
    sys.stdout.flush()
    if os.fork() == 0:
        for path_of_kind in warm:  # what libraries hold of themselves in memory does not count
            load_from_local(path_of_kind)
        open('/proc/self/clear_refs', 'w').write('5')  # the peak begins anew
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        before, start = memory('VmRSS'), time.process_time()
        try:
            error = load_from_local(path) and None
        except Exception as caught:
            error = f'{type(caught).__name__}: {caught}'
        print(json.dumps(dict(path=path, grown=memory('VmHWM') - before, seconds=time.process_time() - start,
                              error=error)), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, f'{path} ended the process'
"""


def read_alone(paths: list[Path], first: Path) -> dict[str, dict]:
    """Read each file in a process of its own: name -> grown (peak, bytes), seconds and error (or None)."""
    legacy, tensors = first.with_name('warm_legacy.pth'), first.with_name('warm.safetensors')
    legacy.write_bytes(saved(dict(a=torch.ones(2)), _use_new_zipfile_serialization=False))
    tensors.write_bytes(safetensors_save(dict(a=torch.ones(2))))
    warm = [first, legacy, tensors]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', _READ, *warm, *paths], env=environment(),
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {Path(record['path']).name: record for record in map(json.loads, done.stdout.splitlines())}


