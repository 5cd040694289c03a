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


def names(found, top):
    return [[os.path.relpath(item.folder, top) for item in part] for part in found]


def test_what_is_a_run(folder):
    logs = '20260101_120000/20260101_120000.log'
    top = folder('done/result.json', f'done/{logs}', f'begun/{logs}', 'begun/job.py', 'old/last_checkpoint',
                 f'prompts/{logs}', 'prompts/job_init_prompts.py', 'configs/job.py', 'deep/er/done/result.json',
                 'done/search/trial_0/result.json')
    assert names(find_runs([str(top)]), top) == [['deep/er/done', 'done', 'done/search/trial_0'], ['begun', 'old']]


def test_a_run_that_is_reached_twice_counts_once(folder):
    top = folder('a/run/result.json', 'a/half/last_checkpoint')
    (top / 'link').symlink_to(top / 'a')
    asked = [str(top / 'a' / 'run'), str(top / 'a'), str(top / 'link'), str(top / 'a' / 'half') + os.sep]
    runs, unfinished = find_runs(asked)
    assert len(runs) == len(unfinished) == 1


def test_the_remedy_names_the_config_of_the_training(folder):
    top = folder('run/last_checkpoint', 'run/job.py', 'run/job_test.py', 'run/job_init_prompts.py')
    (top / 'run/last_checkpoint').write_text('/somewhere/epoch_3.pth')
    (_, (item, )) = find_runs([str(top)])
    assert 'last checkpoint: epoch_3.pth' in item.lacks
    assert item.remedy.startswith(f'python tools/train.py {top}/run/job.py --work-dir {top}/run --resume')


def test_trials_of_a_search_are_no_runs(folder):
    logs = '20260101_120000/20260101_120000.log'
    top = folder('sweep/study.db', f'sweep/trials/1a2b/{logs}', 'sweep/final/1a2b/seed_0/result.json',
                 f'sweep/final/1a2b/seed_1/{logs}', f'other/trials/1a2b/{logs}')
    assert names(find_runs([str(top)]), top) == [['sweep/final/1a2b/seed_0'],
                                                 ['other/trials/1a2b', 'sweep/final/1a2b/seed_1']]
