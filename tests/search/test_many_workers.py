"""Many workers on one plan, killed again and again, their database restarted: the table is that of one in peace."""
import csv
import io
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from glob import glob
from itertools import groupby
from pathlib import Path

import pytest
from fakes import make_cell

import forked
from mmspt.search.cell import Budget
from mmspt.search.queue import COMPLETE, RUNNING, WAITING, Queue
from mmspt.search.states import read_state
from mmspt.search.storage import open_storage, patiently
from mmspt.search.table import write_tables

HERE = Path(__file__).parent
CELLS = [make_cell(['lr=1,2,3'], f'method{i}', Budget(3, 2, 1000), identity=f'id{i}') for i in range(12)]
for _i, _cell in enumerate(CELLS):
    _cell.row['method'] = f'method {_i}'
POSTGRES = max(glob('/usr/lib/postgresql/*/bin'), default='')
linux = pytest.mark.skipif(sys.platform != 'linux', reason='a killed worker takes its run along on Linux only')


class Postgres:
    """A server of its own on a free port; root starts it as the user postgres."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        self.user = ['runuser', '-u', 'postgres', '--'] if os.getuid() == 0 else []
        os.makedirs(folder)
        if self.user:
            shutil.chown(folder, 'postgres')
        self.call('initdb', '-D', folder, '-U', 'tester', '--auth=trust', '--no-sync')
        self.control('start')

    @property
    def address(self):
        return f'postgresql+psycopg://tester:secret@127.0.0.1:{self.port}/postgres'

    def call(self, name, *arguments):
        subprocess.run([*self.user, f'{POSTGRES}/{name}', *map(str, arguments)], check=True, cwd='/',
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def control(self, *what):
        self.call('pg_ctl', '-D', self.folder, '-w', '-l', f'{self.folder}/log', '-o',
                  f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off", *what)


@pytest.fixture
def postgres():
    if not POSTGRES:
        pytest.skip('needs a PostgreSQL server (Debian: postgresql)')
    pytest.importorskip('psycopg')
    if os.getuid() == 0:
        try:
            pwd.getpwnam('postgres')
        except KeyError:
            pytest.skip('root cannot start PostgreSQL, and there is no user postgres')
    folder = f'/tmp/mmspt-postgres-{os.getpid()}'  # the socket's path must be short
    server = Postgres(folder)
    yield server
    server.control('stop', '-m', 'immediate')
    shutil.rmtree(folder)


def start(address, folder, number):
    return forked.start(HERE / 'plan_worker.py', [address, folder], folder / f'worker_{number}.txt')


def table_of(queue, folder):
    """The table without hours, and the trials of each cell without times."""
    states = [read_state(queue, cell) for cell in queue.cells()]
    write_tables(states, str(folder), 'plan')
    assert {state.text for state in states} == {'done'}
    summaries = [state.summary(str(folder)) for state in states]
    for summary in summaries:
        for trial in summary['trials']:
            del trial['seconds']
        summary['trials'].sort(key=lambda trial: trial['number'])
    return list(csv.DictReader(io.StringIO((folder / 'table.csv').read_text()))), summaries


def finish(workers, seconds=240):
    end = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.1, end - time.monotonic()))
        assert not worker.is_alive(), 'no end'


def busy(queue, workers, seconds=60):
    """Indices of the workers that have a run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stages = [stage for cell in CELLS for stage in patiently(partial(queue.stages, cell))]
        owners = [trial.user_attrs.get('owner', '') for stage in stages
                  for trial in patiently(partial(queue.trials, stage.study)) if trial.state == RUNNING]
        pids = {int(owner.split(':')[2].partition('@')[0]) for owner in owners if owner}
        found = [i for i, worker in enumerate(workers) if worker.pid in pids]
        if found:
            return found
    raise AssertionError('nobody works')


def under_fire(address, folder, count, kills, restart=None):
    """Kill workers, and start others in their place; return the queue when all is done."""
    queue = Queue(open_storage(address), 'plan', beat=0.5)
    queue.register(CELLS)
    dice = random.Random(0)
    workers = [start(address, folder, number) for number in range(count)]
    for kill in range(kills):
        time.sleep(dice.uniform(0., 0.5))
        if restart is not None and kill % (kills // 3) == kills // 6:
            restart()
        victim = dice.choice(busy(queue, workers))
        workers[victim].kill()
        workers[victim] = start(address, folder, count + kill)
    finish(workers)
    logs = [path.read_text()[-2000:] for path in folder.glob('worker_*.txt') if 'Traceback' in path.read_text()]
    assert [worker.exitcode for worker in workers] == [0] * count, '\n\n'.join(logs)
    return queue


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('peace')
    queue = Queue(open_storage(str(folder / 'study.db')), 'plan')
    queue.register(CELLS)
    worker = start(str(folder / 'study.db'), folder, 0)
    finish([worker])
    return table_of(queue, folder)


@linux
@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'count', 'kills'), [
    ('postgresql', 4, 20), ('study.db', 2, 8), ('plan.journal', 2, 8)])
def test_killed_workers(tmp_path, request, undisturbed, kind, count, kills):
    server = request.getfixturevalue('postgres') if kind == 'postgresql' else None
    folder = tmp_path / 'fire'
    folder.mkdir()
    address = server.address if server else str(folder / kind)
    queue = under_fire(address, folder, count, kills,
                       server and (lambda: server.control('restart', '-m', 'immediate')))
    assert table_of(queue, folder) == undisturbed
    attempts = []
    for cell in CELLS:
        for stage in queue.stages(cell):
            trials = queue.trials(stage.study)
            assert not any(trial.state in (RUNNING, WAITING) for trial in trials)
            ended = Counter(trial.user_attrs['slot'] for trial in trials if trial.state == COMPLETE)
            assert ended == dict.fromkeys(range(stage.wanted), 1)
            attempts += [trial.user_attrs.get('reason') for trial in trials if trial.state != COMPLETE]
    assert attempts.count('lost') >= kills // 2
    lines = [Path(path).read_text().split() for path in glob(f'{folder}/**/epochs.txt', recursive=True)]
    assert len(lines) == 12 * 5
    for words in lines:
        pids = [pid for pid, _ in groupby(words[1::2])]
        assert len(set(pids)) == len(pids), 'two runs in one folder at a time'
        assert list(dict.fromkeys(words[::2])) == ['1', '2', '3', '4']
    # what was repeated is at most an epoch a kill
    assert sum(len(words) // 2 - 4 for words in lines) <= kills
