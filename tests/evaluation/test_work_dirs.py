"""Which folders are runs."""
import os

import pytest

from mmspt.evaluation import find_runs, write_result
from results import make


@pytest.fixture
def folder(tmp_path):
    """Write files below a folder, empty but for results."""
    def fill(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text('')
            if name.endswith('result.json'):
                write_result(make(), str(tmp_path / name))
        return tmp_path

    return fill


def test_what_is_a_run(folder):
    """Prompts that were only made are no run, nor are the trials of a search."""
    logs = '20260101_120000/20260101_120000.log'
    top = folder('done/result.json', f'done/{logs}', f'begun/{logs}', 'begun/job.py', 'old/last_checkpoint',
                 f'prompts/{logs}', 'prompts/job_init_prompts.py', 'configs/job.py', 'deep/er/result.json',
                 'sweep/search/x.py', f'sweep/trials/1a2b/{logs}', 'sweep/final/1a2b/result.json',
                 f'trials/1a2b/{logs}')
    finished, unfinished, _ = ([os.path.relpath(getattr(item, 'folder', item), top) for item in part]
                               for part in find_runs([str(top)]))
    assert finished == ['deep/er', 'done', 'sweep/final/1a2b'] and unfinished == ['begun', 'old', 'trials/1a2b']


def test_a_run_that_is_reached_twice_counts_once(folder):
    top = folder('a/run/result.json', 'a/half/last_checkpoint')
    (top / 'link').symlink_to(top / 'a')
    asked = [str(top / 'a' / 'run'), str(top / 'a'), str(top / 'link'), str(top / 'a' / 'half') + os.sep]
    runs, unfinished, _ = find_runs(asked)
    assert len(runs) == len(unfinished) == 1


@pytest.mark.parametrize(('name', 'text', 'untested'), [
    ('job.py', 'test_dataloader = None\n', True),
    ('job.py', "model = dict()\ntest_dataloader = dict(\n    batch_size=1)\n", False), ('job.py', '', False),
    ('job.yaml', 'test_dataloader: null\n', True), ('job.yml', 'test_dataloader:\n  batch_size: 1\n', False),
    ('job.json', '{"model": {}, "test_dataloader": null}', True),
    ('job.json', '{"model": {}, "test_dataloader": {"batch_size": 1}}', False),
])
def test_a_run_without_a_test_is_passed_by(folder, name, text, untested):
    """Its config is read, never executed."""
    top = folder('run/last_checkpoint', f'run/{name}')
    (top / 'run' / name).write_text(f'{text}raise RuntimeError\n' if text and name == 'job.py' else text)
    found = find_runs([str(top)])
    assert found.untested == [str(top / 'run')] * untested
    assert len(found.unfinished) == (not untested)


@pytest.mark.parametrize('left', ['result', 'logs'])
def test_the_remedy_of_a_mere_test_is_a_test(folder, left):
    top = folder('run/job_test.py', 'run/20260101_120000/20260101_120000.log')
    if left == 'result':
        write_result(make(trained_on=None, recipe=None, finished=False, epoch=3), str(top / 'run/result.json'))
    (item, ) = find_runs([str(top)]).unfinished
    assert item.remedy == f'python tools/test.py CONFIG CHECKPOINT --work-dir {top}/run'


@pytest.mark.parametrize('name', ['last_checkpoint', '20260101_120000/vis_data/scalars.json'])
def test_a_training_after_the_result_is_noted(folder, name):
    """A test's folder of logs has no scalars."""
    top = folder('run/result.json', f'run/{name}', 'run/20270101_120000/20270101_120000.json')
    os.utime(top / 'run/result.json', (1000, 1000))
    os.utime(top / 'run' / name, (900, 900))
    (run, ) = find_runs([str(top)]).runs
    assert run.note is None
    os.utime(top / 'run' / name, (1100, 1100))
    (run, ) = find_runs([str(top)]).runs
    assert run.note.startswith(f'{name} is newer than result.json')
