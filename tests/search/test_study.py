"""The search's memory: what is taken up, and what is refused."""
import subprocess
import sys

import optuna
import pytest
from mmengine.config import Config

from helpers import ROOT
from mmspt.search.space import parse_space
from mmspt.search.study import FILE, best, count, grid, identify, open_study

SPACE = parse_space(['lr=1,2', 'prompt_decay=0.1,0.2,0.3'])


def identity(config=None, space=SPACE, metric='accuracy/top1', amp=None):
    return identify(Config(dict(model=dict(num=5, parts=[1]), load_from=None) | (config or {})), space, metric, amp)


def reopen(folder, **keys):
    return open_study(str(folder), identity(**keys), 0, 5, 0)


@pytest.mark.parametrize('name', ['a b?c#d%20{e}', 'é=1&uri=false'])
def test_in_any_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    study = reopen(folder)
    study.tell(study.ask(), 1.)
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert count(reopen(folder)) == 1 and best(reopen(folder)).value == 1


def test_work_directories_and_resuming_do_not_tell_searches_apart(tmp_path):
    study = reopen(tmp_path)
    study.tell(study.ask(), 1.)
    assert count(reopen(tmp_path, config=dict(work_dir='x', resume=True, launcher='pytorch'))) == 1


def test_the_order_of_keywords_does_not_tell_searches_apart(tmp_path):
    pipeline = [dict(type='ResizeEdge', scale=32), dict(type='MultiView', transforms=[[dict(type='Flip', prob=1.)]])]
    reopen(tmp_path, config=dict(pipeline=pipeline, a=1))
    reopen(tmp_path, config=dict(a=1, pipeline=[
        dict(scale=32, type='ResizeEdge'), dict(type='MultiView', transforms=[[dict(prob=1., type='Flip')]])]))
    with pytest.raises(ValueError, match=r'1 settings differ \(config.pipeline.0.scale was 32, is 64\)'):
        reopen(tmp_path, config=dict(a=1, pipeline=[dict(pipeline[0], scale=64), pipeline[1]]))
    with pytest.raises(ValueError, match='8 settings differ'):
        reopen(tmp_path, config=dict(a=1, pipeline=pipeline[::-1]))


@pytest.mark.parametrize(('keys', 'shown'), [
    (dict(config=dict(model=dict(num=6, parts=[1]))), 'config.model.num was 5, is 6'),
    (dict(config=dict(model=dict(parts=[1]))), 'config.model.num was 5, is absent'),
    (dict(space=parse_space(['lr=1,2'])), "space.optim_wrapper.optimizer.weight_decay was .* is absent"),
    (dict(metric='loss'), 'metric was accuracy/top1, is loss'), (dict(amp='float16'), 'amp was None, is float16')])
def test_a_database_of_another_search(tmp_path, keys, shown):
    reopen(tmp_path)
    with pytest.raises(ValueError, match=f'1 settings differ .*{shown}.*: take the old config'):
        reopen(tmp_path, **keys)


def not_a_database(path):
    path.write_bytes(b'these are no pages' * 100)


def of_another_sweep(path):
    study = optuna.create_study(storage=f'sqlite:///{path}', study_name='sweep', direction='maximize')
    study.tell(study.ask(), 1.)


@pytest.mark.parametrize('make', [not_a_database, of_another_sweep])
def test_a_foreign_database(tmp_path, make):
    make(tmp_path / FILE)
    with pytest.raises(ValueError, match=r'must find its own database.*choose another --work-dir'):
        reopen(tmp_path)


def test_grid_is_whole_and_the_same_for_a_seed():
    settings = grid(SPACE, 0)
    assert len({str(s) for s in settings}) == 6 and settings == grid(SPACE, 0) != grid(SPACE, 1)
    assert grid(parse_space(['lr=1,2', 'prompt_decay=0.1:1']), 0) == []


def test_without_optuna(tmp_path):
    (tmp_path / 'optuna.py').write_text("raise ImportError('no optuna')\n")
    done = subprocess.run([sys.executable, '-c', 'import mmspt.search'], cwd=ROOT, capture_output=True, text=True,
                          env=dict(PYTHONPATH=f'{tmp_path}:{ROOT}'), check=False)
    assert done.returncode and "pip install -e '.[search]'" in done.stderr
