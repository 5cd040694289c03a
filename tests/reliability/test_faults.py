"""A full disk, a diverged loss: the error says so, and the last good checkpoint stays."""
import errno
import os
import resource
import signal

import pytest

from mmspt.files import clear_unfinished, write_bytes, write_text


def no_room_for(size: int) -> None:
    """Let the system refuse files larger than ``size`` bytes (EFBIG)."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def refuse(ending: str, number: int, first: int) -> None:
    """Let ``os.fsync`` of files with this ending fail from the ``first`` call on."""
    function, calls = os.fsync, 0

    def failing(descriptor):
        nonlocal calls
        path = os.readlink(f'/proc/self/fd/{descriptor}')
        if ending in path:
            calls += 1
            if calls >= first:
                raise OSError(number, os.strerror(number), path)
        function(descriptor)

    os.fsync = failing


def refuse_logs(first: int) -> None:
    """Let the disk be full when the scalars of an iteration are logged."""
    from mmengine.visualization import LocalVisBackend

    dump, calls = LocalVisBackend._dump, 0

    def failing(*args):
        nonlocal calls
        calls += 1
        if calls >= first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        dump(*args)

    LocalVisBackend._dump = failing


FAULTS = {  # name: (the fault, the error's text, the checkpoint that stays)
    'disk full': ((refuse, '.pth', errno.ENOSPC, 5), 'No space left on device', 'epoch_2.pth'),
    'disk full at the best': ((refuse, 'best', errno.ENOSPC, 1), 'No space left on device', 'epoch_1.pth'),
    'file too large': ((no_room_for, 30_000), 'File too large', ''),
    'log': ((refuse_logs, 18), 'No space left on device', 'epoch_2.pth'),
    'result': ((refuse, 'result.json', errno.ENOSPC, 1), 'No space left on device', 'epoch_4.pth'),
}
FAST = ('disk full', 'log')


@pytest.mark.parametrize('fault', [
    pytest.param(fault, marks=[] if fault in FAST else [pytest.mark.slow]) for fault in FAULTS])
def test_disk(fault, survive, tmp_path):
    """The error names the last good checkpoint, and the run goes on from it."""
    (before, *given), message, stays = FAULTS[fault]
    error = survive((before, *given), code=1, last=stays)
    assert message in error and 'GiB are free there' in error
    assert (f"the last good checkpoint is '{tmp_path / 'run' / stays}'" if stays else 'no checkpoint yet') in error


@pytest.mark.parametrize(('options', 'message'), [
    ([], 'the loss must be finite, but it is nan in iteration 8 of 12 (epoch 3), learning rate: base_lr 0.0'),
    pytest.param(['--cfg-options', 'default_hooks.finite_loss.type=IterTimerHook'],
                 'weights must be finite to be saved, but backbone.prompts.tokens, head.', marks=pytest.mark.slow),
], ids=['loss', 'weights'])
def test_diverged(options, message, survive, tmp_path):
    """NaN in a batch: the error says how to fix it, and no checkpoint holds NaN."""
    error = survive((diverge, 8), code=1, last='epoch_2.pth', options=options)
    assert 'FloatingPointError' in error and message in error
    assert f"the last good checkpoint is '{tmp_path / 'run' / 'epoch_2.pth'}'" in error


def diverge(iteration: int) -> None:
    """Let one batch be NaN."""
    from mmpretrain.models import ImageClassifier

    loss, calls = ImageClassifier.loss, 0

    def diverging(self, inputs, data_samples):
        nonlocal calls
        calls += 1
        return loss(self, inputs * float('nan') if calls == iteration else inputs, data_samples)

    ImageClassifier.loss = diverging


def test_files_are_written_beside(tmp_path):
    path = tmp_path / 'new' / 'name.txt'
    write_text(str(path), 'first ä')
    assert path.read_text(encoding='utf-8') == 'first ä'
    with pytest.raises(TypeError):
        write_bytes(str(path), 3)
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError, match='folder'):
        write_bytes(str(tmp_path / 'folder'), b'second')
    assert path.read_text(encoding='utf-8') == 'first ä'
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['folder', 'name.txt', 'new']


def test_links_and_pipes_stay_what_they_are(tmp_path):
    (tmp_path / 'real.txt').write_text('first')
    (tmp_path / 'link').symlink_to(tmp_path / 'real.txt')
    write_text(str(tmp_path / 'link'), 'second')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real.txt').read_text() == 'second'
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(str(tmp_path / 'pipe'), b'third')
    assert os.read(reader, 10) == b'third' and (tmp_path / 'pipe').is_fifo()
    os.close(reader)
    long = tmp_path / f'{"x" * 250}.pth'
    write_bytes(str(long), b'fourth')
    assert long.read_bytes() == b'fourth'


def test_only_unfinished_files_are_cleared(tmp_path):
    for name in ('epoch_1.pth.0123abcd.tmp', 'mine.tmp', 'epoch_1.pth', 'a.0123abcd.tmp.txt'):
        (tmp_path / name).touch()
    clear_unfinished(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.0123abcd.tmp.txt', 'epoch_1.pth', 'mine.tmp']
