"""Mutated checkpoints and prompt files: each is a clean error or a right result, in bounded time and memory."""
import json
import pickletools
import random
import signal
import struct
from collections import Counter
from itertools import pairwise

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors.torch import save

from foreign import assert_same, entries, mmengine_checkpoint, saved, zipped
from mmspt.checkpoint_files import load_from_local
from mmspt.models.weights import check_fit, find_encoder, fit_position, place_final_norm
from mmspt.prompts.initializers import FileInit

FILES = 700
SHAPE = (2, 3, 4)


def encoder():
    """Weights of a ViT of one block and width 8, as far as a mutation needs them."""
    generator = torch.Generator().manual_seed(0)
    shapes = {'cls_token': (1, 1, 8), 'pos_embed': (1, 5, 8), 'patch_embed.projection.weight': (8, 3, 4, 4),
              'patch_embed.projection.bias': (8, ), 'layers.0.ln1.weight': (8, ), 'layers.0.attn.qkv.weight': (24, 8),
              'ln1.weight': (8, ), 'ln1.bias': (8, )}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def bases():
    """Name -> a right file of each kind, the smallest that has all parts."""
    checkpoint = mmengine_checkpoint()
    checkpoint['state_dict'] = {f'backbone.{key}': value for key, value in encoder().items()}
    prompts = torch.linspace(-1, 1, 24).reshape(SHAPE)
    return {'zip.pth': saved(checkpoint), 'legacy.pth': saved(checkpoint, _use_new_zipfile_serialization=False),
            'weights.safetensors': save(encoder()),
            'prompts.safetensors': save({'prompts': prompts}, metadata=dict(seed='0')),
            'prompts.pth': saved(dict(state_dict={'backbone.prompts': prompts}))}


BASES = bases()


# byte by byte: a zip file's check sums must find whatever they do
def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(data, rng):
    return data[:rng.randrange(len(data))]


def noise(data, rng):
    start = rng.randrange(len(data))
    length = rng.choice((1, 8, 100, len(data)))
    return data[:start] + rng.randbytes(length) + data[start + length:]


def zeros(data, rng):
    start = rng.randrange(len(data))
    length = rng.choice((4, 50, 1000))
    return data[:start] + bytes(length) + data[start + length:]


def insert(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 4, 64))) + data[start:]


def delete(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 4, 64)):]


def move(data, rng):
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 500))
    run, rest = data[start:start + length], data[:start] + data[start + length:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + run + rest[to:]


def directory(data, rng):
    """Numbers of a zip file's directory, or of its end."""
    data = bytearray(data)
    marks = (b'PK\1\2', b'PK\5\6', b'PK\6\6', b'PK\6\7', b'PK\3\4')
    places = [at for at in range(len(data) - 4) if data[at:at + 4] in marks]
    at = rng.choice(places) + rng.randrange(4, 44)
    size = rng.choice((1, 2, 4, 8))
    data[at:at + size] = rng.choice((bytes(size), b'\xff' * size, rng.randbytes(size),
                                     struct.pack('<Q', 1 << 30)[:size]))
    return bytes(data)


BYTES = (flip, cut, noise, zeros, insert, delete, move)


# within: another valid zip or safetensors file, whose check sums are right
GLOBALS = [b'cbuiltins\nbytearray\n', b'ctorch\nTensor\n', b'ctorch\nDoubleStorage\n', b'ctorch\nint8\n',
           b'cos\nsystem\n', b'ccollections\nOrderedDict\n', b'ccollections\nCounter\n', b'c__builtin__\nset\n',
           b'c_codecs\nencode\n',
           b'ctorch._utils\n_rebuild_tensor\n', b'ctorch._utils\n_rebuild_parameter\n', b'ctorch\nSize\n',
           b'cmmengine.logging.history_buffer\nHistoryBuffer\n', b'cargparse\nNamespace\n', b'cnumpy\ndtype\n']
PARTS = [b'N', b'K\xff', b'J\xff\xff\xff\xff', b'J\xff\xff\xff\x7f', b'\x8a\x08' + b'\xff' * 7 + b'\x3f', b']', b'}',
         b')', b'(', b't', b'\x85', b'\x86', b'\x87', b'R', b'\x81', b'b', b's', b'u', b'a', b'e', b'Q', b'.', b'0',
         b'2', b'G\x7f\xf0' + bytes(6), b'X\x01\0\0\0a', b'X\0\0\0\x7f', b'h\x01', b'h\x09', b'q\x03', *GLOBALS]


def opcode_edit(pickled, rng):
    places = [place for *_, place in pickletools.genops(pickled)] + [len(pickled)]
    parts = [pickled[a:b] for a, b in pairwise(places)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(1, len(parts))
        other = rng.choice((rng.choice(parts), rng.choice(PARTS)))
        kind = rng.randrange(5)
        if kind == 0:
            parts[at] = other
        elif kind == 1:
            parts.insert(at, other)
        elif kind == 2:
            del parts[at]
        elif kind == 3:
            to = rng.randrange(1, len(parts))
            parts[at], parts[to] = parts[to], parts[at]
        else:
            numbers = [i for i, part in enumerate(parts) if part[:1] in (b'K', b'M', b'J')]
            parts[rng.choice(numbers)] = rng.choice((b'K', b'J\0\0\0')) + rng.randbytes(1)
        if len(parts) < 3:
            break
    return b''.join(parts)


def opcodes(data, rng):
    contents = entries(data)
    name = next(name for name in contents if name.endswith('/data.pkl'))
    return zipped(contents | {name: opcode_edit(contents[name], rng)})


def records(data, rng):
    """Entries swapped, left out, cut or filled with numbers that are none."""
    contents = entries(data)
    one, two = rng.sample(sorted(contents), 2)
    kind = rng.randrange(4)
    if kind == 0:
        contents[one], contents[two] = contents[two], contents[one]
    elif kind == 1:
        del contents[one]
    elif kind == 2:
        contents[one] = contents[one][:rng.randrange(len(contents[one]) + 1)]
    else:
        one = rng.choice([name for name in contents if '/data/' in name])
        contents[one] = (b'\0\0\xc0\x7f', b'\0\0\x80\xff')[rng.randrange(2)] * (len(contents[one]) // 4) + \
            bytes(len(contents[one]) % 4)
    return zipped(contents)


def header(data, rng):
    """A safetensors header of other numbers, names and types."""
    length = struct.unpack('<Q', data[:8])[0]
    fields = json.loads(data[8:8 + length])
    tensors = [name for name in fields if name != '__metadata__']
    field = fields[rng.choice(tensors)]
    kind = rng.randrange(6)
    number = rng.choice((-1, 0, 1, 2, 10**6, 10**12, 2**63, 1.5, 'a', None))
    if kind == 0:
        field['shape'][rng.randrange(len(field['shape']))] = number
    elif kind == 1:
        field['data_offsets'][rng.randrange(2)] = number
    elif kind == 2:
        field['dtype'] = rng.choice(('F64', 'F16', 'I32', 'U8', 'BOOL', 'C64', 'F8_E4M3', 'X', 3))
    elif kind == 3:
        fields[rng.choice(('prompts', 'a', ''))] = fields.pop(rng.choice(tensors))
    elif kind == 4:
        field.pop(rng.choice(sorted(field)))
    else:
        field['shape'] = rng.choice(([], [24], [1] * 99, [2, 3, 2, 2], list(reversed(field['shape']))))
    text = json.dumps(fields).encode()
    return struct.pack('<Q', rng.choice((len(text), len(text), len(text), number if type(number) is int and number >= 0
                                         else 5))) + text + data[8 + length:]


def values(data, rng):
    """NaN or infinity as safetensors hold them."""
    start = 8 + struct.unpack('<Q', data[:8])[0]
    at = start + 4 * rng.randrange((len(data) - start) // 4)
    return data[:at] + rng.choice((b'\0\0\xc0\x7f', b'\0\0\x80\x7f', b'\0\0\x80\xff')) + data[at + 4:]


def mutations(base):
    if base.endswith('.safetensors'):
        return (*BYTES, header, header, values)
    return (*BYTES, directory, opcodes, opcodes, opcodes, records) if BASES[base][:2] == b'PK' else BYTES


def check_tensors(value, size):
    """Every tensor is dense, within a storage of its own or shared, and that within the file."""
    if isinstance(value, torch.Tensor):
        assert value.layout is torch.strided and value.device.type == 'cpu' and not value.is_quantized
        assert value.numel() * value.element_size() <= value.untyped_storage().nbytes() <= size
        value.clone()  # touches every number
    elif isinstance(value, dict):
        for item in value.values():
            check_tensors(item, size)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_tensors(item, size)


def use(content, path):
    """What the readers of the project do with a file; ValueError is theirs, all else a fault."""
    if path.name.startswith('prompts'):
        prompts = FileInit(str(path)).fill([], SHAPE, (4, 4), torch.Generator())
        assert prompts.shape == SHAPE and prompts.dtype == torch.float32 and prompts.isfinite().all()
        return
    found = find_encoder(content)
    if found is not None:
        found, _ = fit_position(place_final_norm(found, set(encoder())), (2, 2), True, 'bicubic')
        check_fit(found, encoder(), 1)
        assert all(value.isfinite().all() for value in found.values() if value.element_size() > 1)


def fuzz(folder, seed, count):
    """Read ``count`` mutated files; return how they ended, counted by (base, mutation, outcome)."""
    rng = random.Random(seed)
    outcomes = Counter()
    originals = {}
    for name, data in BASES.items():
        (folder / name).write_bytes(data)
        originals[name] = load_from_local(str(folder / name))
        use(originals[name], folder / name)
    for number in range(count):
        base = list(BASES)[number % len(BASES)]
        mutation = rng.choice(mutations(base))
        data = mutation(BASES[base], rng)
        stem, suffix = base.split('.')
        path = folder / f'{stem}_{number}.{suffix}'
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, 2)  # of this process' own time
        try:
            content = load_from_local(str(path))
            check_tensors(content, len(data))
            if mutation in (*BYTES, directory) and BASES[base][:2] == b'PK':
                assert_same(content, originals[base])
                outcome = 'same'
            else:
                use(content, path)
                outcome = 'read'
        except RuntimeError as error:
            assert path.name in str(error) and 'etch' in str(error) and 'weights_only' not in str(error), (seed, number)
            outcome = 'refused'
        except ValueError:
            outcome = 'refused by its user'
        except BaseException as error:
            raise AssertionError(f'seed {seed}, file {number}, {base}, {mutation.__name__}') from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        outcomes[base, mutation.__name__, outcome] += 1
        path.unlink()
    return outcomes


def resident():
    with open('/proc/self/status', encoding='utf-8') as file:
        return int(next(line for line in file if line.startswith('VmHWM')).split()[1]) * 1024


@pytest.fixture
def _alarm():
    def too_long(*_):
        raise TimeoutError('a file took more than 2 seconds')

    before = signal.signal(signal.SIGPROF, too_long)
    MMLogger.get_current_instance().setLevel('ERROR')
    yield
    MMLogger.get_current_instance().setLevel('INFO')
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures('_alarm')
def test_mutated_files_are_read_right_or_refused(tmp_path):
    before = resident()
    outcomes = fuzz(tmp_path, 0, FILES)
    assert resident() - before < 64 << 20  # the greatest file has 10 kB
    assert sum(outcomes.values()) == FILES
    counts = Counter()
    for (_, _, outcome), count in outcomes.items():
        counts[outcome] += count
    assert min(counts[name] for name in ('same', 'read', 'refused', 'refused by its user')) >= 10, counts
    assert {name for _, name, _ in outcomes} == {mutation.__name__ for base in BASES for mutation in mutations(base)}
