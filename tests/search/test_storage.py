"""Where a plan is kept: paths of any kind, what cannot be opened, and a storage that is away for a while."""
import contextlib
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import optuna
import pytest
from fakes import make_cell
from optuna.trial import TrialState

from mmspt.search import storage
from mmspt.search.queue import Queue
from mmspt.search.storage import FILE, hide_password, open_storage, patiently


@pytest.mark.parametrize('name', ['a b?c#d%20{e}', 'é=1&uri=false'])
@pytest.mark.parametrize('file', [FILE, 'plan.journal'])
def test_in_any_folder(tmp_path, name, file):
    folder = tmp_path / name
    for _ in range(2):
        queue = Queue(open_storage(str(folder / file)), 'plan')
        queue.register([make_cell()])
        assert [cell.key for cell in queue.cells()] == ['recipe@id']
    assert {path.name for path in folder.iterdir()} == {file}


@pytest.mark.parametrize(('address', 'message'), [
    ('postgresql+psycopg://me:secret@127.0.0.1:1/x', r'me:\*\*\*@127.0.0.1:1/x. is not \(.*refused'),
    ('nosql://x', "'nosql://x' is not"), ('{folder}/file/study.db', 'is not .*(Not a directory|File exists)')])
def test_what_cannot_be_opened(tmp_path, address, message):
    """One line with the reason and what to do, and no password."""
    (tmp_path / 'file').write_text('')
    if 'psycopg' in address:
        pytest.importorskip('psycopg')
    with pytest.raises(ValueError, match=message) as caught:
        open_storage(address.format(folder=tmp_path))
    assert 'start the server, correct --storage' in str(caught.value) and 'secret' not in str(caught.value)


def test_the_error_names_the_file_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, 'SETTLING', 0.)
    path = tmp_path / 'no.db'
    path.write_text('this is a text, and as long as a page of a database would be\n' * 99)
    with pytest.raises(ValueError, match=f"but '{re.escape(str(path))}' is not .*not a database"):
        open_storage(str(path))


def test_patience_runs_from_the_first_failure_on(tmp_path, monkeypatch):
    """Which may come late: on a busy machine the first attempt takes long itself."""
    attempts = []

    def attempt(url):
        attempts.append(url)
        if len(attempts) == 1:
            time.sleep(0.5)
            raise OSError('made by another')
        return 'opened'

    for name, value in dict(SETTLING=0.3, PAUSE=0.01, _open_database=attempt).items():
        monkeypatch.setattr(storage, name, value)
    assert open_storage(str(tmp_path / FILE)) == 'opened' and len(attempts) == 2


@pytest.mark.slow
def test_processes_that_make_one_file_at_the_same_moment(tmp_path):
    """Each opens it: those whose tables another was faster to make wait a moment."""
    code = ('import sys, time; from mmspt.search.storage import open_storage; print(1, flush=True)\n'
            'for line in sys.stdin:\n'
            '    number, start = line.split()\n'
            '    while time.time() < float(start): pass\n'
            '    open_storage(f"{number}.db")\n'
            '    print(2, flush=True)\n')
    processes = [subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [[process.stdout.readline()] for process in processes]
    for number in range(3):
        start = time.time() + 0.5
        for process in processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f'{number} {start}\n')
                process.stdin.flush()
        for process, answer in zip(processes, answers, strict=True):
            answer.append(process.stdout.readline())
    for process in processes:
        process.communicate()
    assert answers == [['1\n', *['2\n'] * 3]] * 4


@pytest.mark.parametrize('file', [FILE, 'plan.journal'])
def test_a_run_is_taken_once(tmp_path, file):
    """Of workers that take a run at the same moment, one gets it."""
    count, runs = 4, 25
    address = str(tmp_path / file)
    study = optuna.create_study(storage=open_storage(address), study_name='x')
    for _ in range(runs):
        study.enqueue_trial({})
    barrier = threading.Barrier(count)

    def take(_):
        shared = open_storage(address)
        trials = [trial._trial_id for trial in shared.get_all_trials(shared.get_study_id_from_name('x'))]
        taken = []
        for trial_id in trials:
            barrier.wait(60)
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                taken += [trial_id] * shared.set_trial_state_values(trial_id, TrialState.RUNNING)
        return taken

    with ThreadPoolExecutor(count) as pool:
        taken = [trial_id for one in pool.map(take, range(count)) for trial_id in one]
    assert len(taken) == len(set(taken)) == runs


def test_patience(monkeypatch):
    """A storage that comes back is asked again; one that does not is an error that says what is kept."""
    monkeypatch.setattr(storage, 'PAUSE', 0.01)
    answers = iter([OSError('away'), OSError('away'), 5])

    def call():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert patiently(call) == 5
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r'did not for 0 s \(away\): what is finished is kept'):
        patiently(lambda: (_ for _ in ()).throw(OSError('away')), patience=0.1)
    assert time.monotonic() - began < 5


def test_a_disk_that_fills_leaves_a_journal_whole(tmp_path, monkeypatch):
    """What was told before is kept, and a later call goes on."""
    queue = Queue(open_storage(str(tmp_path / 'plan.journal')), 'plan')
    queue.register([make_cell(name='a')])
    real = storage.os.fsync

    def full(number):
        storage.os.write(number, b'{"half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(storage.os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        queue.study('x')
    monkeypatch.setattr(storage.os, 'fsync', real)
    again = Queue(open_storage(str(tmp_path / 'plan.journal')), 'plan')
    assert again.claim().slot == 0 and queue.cells()[0].name == 'a'


def test_a_storage_that_must_be_there(tmp_path):
    with pytest.raises(ValueError, match=r"there is no '.*study.db': begin the plan"):
        open_storage(str(tmp_path / 'out' / FILE), create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('address', 'shown'), [
    ('postgresql://a:b@host/x', 'postgresql://a:***@host/x'), ('postgresql://a@host/x', 'postgresql://a@host/x'),
    ('/a:b@c/study.db', '/a:b@c/study.db')])
def test_passwords_are_not_shown(address, shown):
    assert hide_password(address) == shown


def test_a_plan_that_goes_on_does_not_write_its_cells_again(tmp_path):
    """A journal keeps all that is written."""
    path = tmp_path / 'plan.journal'
    cells = [replace(make_cell(name='a'), trial_config='x = 1\n' * 9999), make_cell(name='b')]
    sizes = []
    for _ in range(3):
        Queue(open_storage(str(path)), 'plan').register(cells)
        sizes.append(path.stat().st_size)
    assert sizes[2] - sizes[0] < 5000 < sizes[0]
    cells[0] = replace(cells[0], trial_config='x = 2\n')
    queue = Queue(open_storage(str(path)), 'plan')
    queue.register(cells)
    assert [cell.trial_config for cell in queue.cells()] == ['x = 2\n', cells[1].trial_config]


def test_a_plan_that_is_not_there(tmp_path):
    address = str(tmp_path / FILE)
    Queue(open_storage(address), 'one').register([make_cell()])
    with pytest.raises(ValueError, match="this storage has no 'other'; it has one: name one, or begin it with"):
        Queue(open_storage(address), 'other').cells()


def test_an_edited_plan_keeps_the_cells_that_are_as_they_were(tmp_path):
    """Cells come and go with the plan; one that is defined anew is another."""
    queue = Queue(open_storage(str(tmp_path / FILE)), 'plan')
    queue.register([make_cell(name='x/a'), make_cell(name='x/b')])
    assert queue.claim().cell.name == 'x/a'
    queue.study('x/a@id/test-1')
    queue.register([make_cell(name='x/b', identity='new'), make_cell(name='x/a'), make_cell(name='c')])
    assert [cell.key for cell in queue.cells()] == ['x/b@new', 'x/a@id', 'c@id']
    assert queue.begun() == {'x/a@id', 'x/b@id', 'x/b@new', 'c@id'}
    assert len(queue.trials('x/a@id')) == 3 and not queue.trials('x/b@new')
