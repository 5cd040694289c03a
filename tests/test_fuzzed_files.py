"""Mutated checkpoints and prompt files: each is read or is an error that names it, and no code runs."""
import os
import pickletools
import random
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save

from foreign import IS_FORK, Call, entries, mmengine_checkpoint, saved, zipped
from mmspt.checkpoint_loaders import load_file

FILES = 200


def bases(planted):
    """Name -> a small file of each kind; one holds a call that would make a folder."""
    prompts = save({'prompts': torch.linspace(-1, 1, 24).reshape(2, 3, 4)}, metadata=dict(seed='0'))
    checkpoint = mmengine_checkpoint()
    return {'zip.pth': saved(checkpoint), 'legacy.pth': saved(checkpoint, _use_new_zipfile_serialization=False),
            'evil.pth': saved(checkpoint | dict(extra=Call(os.mkdir, str(planted)))), 'prompts.safetensors': prompts}


def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(data, rng):
    return data[:rng.randrange(len(data))]


def noise(data, rng):
    start = rng.randrange(len(data))
    length = rng.choice((1, 8, 100, len(data)))
    return data[:start] + rng.randbytes(length) + data[start + length:]


def opcodes(data, rng):
    """Exchange, drop or repeat opcodes of a zip file's pickle; its check sums are right."""
    contents = entries(data)
    name = next(name for name in contents if name.endswith('/data.pkl'))
    places = [place for *_, place in pickletools.genops(contents[name])] + [len(contents[name])]
    parts = [contents[name][a:b] for a, b in pairwise(places)]
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(1, len(parts))
        parts[at:at + rng.randrange(2)] = rng.choices(parts, k=rng.randrange(3))
    return zipped(contents | {name: b''.join(parts)})


@pytest.mark.skipif(IS_FORK, reason="MMEngine's fork adds NumPy's own classes, which a forged state crashes")
def test_mutated_files_are_read_or_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')  # as the tools do
    planted, rng, read = tmp_path / 'planted', random.Random(0), 0
    originals = bases(planted)
    for number in range(FILES):
        name = list(originals)[number % len(originals)]
        mutation = rng.choice((flip, cut, noise) if name[0] in 'lp' else (flip, cut, noise, opcodes, opcodes))
        path = tmp_path / f'{number}_{name}'
        path.write_bytes(mutation(originals[name], rng))
        try:
            content = load_file(str(path))
        except RuntimeError as error:
            assert str(path) in str(error), (number, name, mutation)
        else:
            read += isinstance(content, dict)
        path.unlink()
    assert not planted.exists() and FILES // 20 < read < FILES // 2
