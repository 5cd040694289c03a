"""The search's memory: what is taken up, and what is refused."""
import pytest
from mmengine.config import Config

from mmspt.search.space import parse_space
from mmspt.search.study import FILE, best, count, grid, identify, open_study

SPACE = parse_space(['lr=1,2', 'prompt_decay=0.1,0.2,0.3'])
CONFIG = dict(pipeline=[dict(type='Resize', scale=32), dict(type='Flip')], num=5, load_from=None, workers=2,
              train_dataloader=dict(batch_size=2, num_workers=2))


def reopen(folder, config=CONFIG, space=SPACE, metric='accuracy/top1', amp=None):
    return open_study(str(folder), identify(Config(config), space, metric, amp), 0, 5, 0)


@pytest.mark.parametrize('name', ['a b?c#d%20{e}', 'é=1&uri=false'])
def test_in_any_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    study = reopen(folder)
    study.tell(study.ask(), 1.)
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert count(reopen(folder)) == 1 and best(reopen(folder)).value == 1


@pytest.mark.parametrize('keys', [
    dict(config=CONFIG | dict(work_dir='x', resume=True, launcher='pytorch')), dict(space=SPACE[::-1]),
    dict(config=CONFIG | dict(workers=8, train_dataloader=dict(batch_size=2, num_workers=8))),
    dict(config=CONFIG | dict(pipeline=[dict(scale=32, type='Resize'), dict(type='Flip')]))])
def test_the_same_search(tmp_path, keys):
    """Neither folders, workers nor the order of keywords tell two searches apart."""
    study = reopen(tmp_path)
    study.tell(study.ask(), 1.)
    assert count(reopen(tmp_path, **keys)) == 1


@pytest.mark.parametrize('keys', [
    dict(config=CONFIG | dict(num=6)), dict(config=CONFIG | dict(train_dataloader=dict(batch_size=3))),
    dict(config=CONFIG | dict(pipeline=CONFIG['pipeline'][::-1])),
    dict(space=parse_space(['lr=1,2'])), dict(metric='loss'), dict(amp='float16')])
def test_another_search(tmp_path, keys):
    reopen(tmp_path)
    with pytest.raises(ValueError, match=r'precision that it began with, but .* began with others: take these'):
        reopen(tmp_path, **keys)


def test_grid_is_whole_and_the_same_for_a_seed():
    settings = grid(SPACE, 0)
    assert len({str(s) for s in settings}) == 6 and settings == grid(SPACE, 0) != grid(SPACE, 1)
    assert grid(parse_space(['lr=1,2', 'prompt_decay=0.1:1']), 0) == []
