"""A cell: what tells two apart, and that all of it goes through JSON."""
import json
from dataclasses import replace

import pytest
from fakes import make_cell
from mmengine.config import Config

from mmspt.search.cell import Budget, Cell, identify, warmup_of
from mmspt.search.cell import make_cell as make
from mmspt.search.space import parse_space

SPACE = parse_space(['lr=1,2', 'prompt_decay=0.1,0.2,0.3'])
CONFIG = dict(pipeline=[dict(type='Resize', scale=32), dict(type='Flip')], num=5, load_from=None, workers=2,
              train_dataloader=dict(batch_size=2, num_workers=2))


def identity(config=CONFIG, space=SPACE, metric='accuracy/top1', amp=None):
    return identify(Config(config), space, metric, amp)


@pytest.mark.parametrize('keys', [
    dict(config=CONFIG | dict(work_dir='x', resume=True, launcher='pytorch')), dict(space=SPACE[::-1]),
    dict(config=CONFIG | dict(workers=8, train_dataloader=dict(batch_size=2, num_workers=8))),
    dict(config=CONFIG | dict(pipeline=[dict(scale=32, type='Resize'), dict(type='Flip')]))])
def test_the_same_search(keys):
    """Neither folders, workers nor the order of keywords tell two searches apart."""
    assert identity(**keys) == identity()


@pytest.mark.parametrize('keys', [
    dict(config=CONFIG | dict(num=6)), dict(config=CONFIG | dict(train_dataloader=dict(batch_size=3))),
    dict(config=CONFIG | dict(pipeline=CONFIG['pipeline'][::-1])),
    dict(space=parse_space(['lr=1,2'])), dict(metric='loss'), dict(amp='float16')])
def test_another_search(keys):
    assert identity(**keys) != identity()


def test_json():
    cell = make_cell(['lr=1e-3:1:log', 'model.n=1:5', 'model.flag=True,None,text', 'prompt_decay=0.1,2'], 'a/b',
                     Budget(5, 2, 3, True, 0.5))
    again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
    assert again == cell and again.key == 'a/b@id' and replace(cell, identity='x').key != cell.key


@pytest.mark.parametrize(('scheduler', 'epochs'), [
    (dict(type='mmspt.WarmupCosineLR', warmup=10, end=100), 10), (dict(type='CosineAnnealingLR', end=100), 0),
    ([dict(type='LinearLR', end=5), dict(type='CosineAnnealingLR', begin=5, end=100)], 5),
    (dict(type='LinearLR', end=500, by_epoch=False), 0), (None, 0)])
def test_warmup(scheduler, epochs):
    """No trial is pruned while its rate still rises, however long that takes."""
    assert warmup_of(Config(dict(train_cfg=dict(max_epochs=100), param_scheduler=scheduler))) == epochs


def test_from_a_recipe():
    """Everything that a worker needs, without the data: the config of each kind of run, and its row of the table."""
    cell = make('configs/spt/vit-b_mae_vtab_cifar.py', {'model.backbone.num_prompts': 5}, ['lr=0.1,0.2'], 'x',
                budget=Budget(2, 3))
    trial, final = (Config.fromstring(text, '.py') for text in (cell.trial_config, cell.final_config))
    assert (trial.train_dataloader.dataset.split, final.train_dataloader.dataset.split) == ('train', 'trainval')
    assert trial.model.backbone.num_prompts == 5 and trial.get('test_dataloader') is None
    assert (cell.length, cell.unit, cell.warmup) == (100, 'epoch', 20) and cell.global_batch == trial[
        'train_dataloader']['batch_size']
    assert [cell.row[key] for key in ('group', 'method', 'arch', 'pretraining')] == [
        'Natural', 'SPT-Deep', 'ViT-B', 'MAE']
    assert cell.identity != make('configs/spt/vit-b_mae_vtab_cifar.py', None, ['lr=0.1,0.2']).identity
