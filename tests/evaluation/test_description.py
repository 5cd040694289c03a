"""A config's place in the tables, for our recipes, MMPretrain's stock ones and configs with holes."""
import pytest
from mmengine.config import Config

from helpers import ROOT
from mmspt.evaluation import describe
from mmspt.evaluation.description import config_name


def of(path, **options):
    cfg = Config.fromfile(ROOT / 'configs' / path if '::' not in path else path)
    cfg.merge_from_dict(options)
    return describe(cfg)


@pytest.mark.parametrize(('path', 'method', 'initializer', 'num_prompts', 'arch'), [
    ('spt/vit-b_mae_cub.py', 'SPT-Deep', 'RandomSampleInit', 20, 'ViT-B'),
    ('spt/vit-b_mae_cub_shallow.py', 'SPT-Shallow', 'RandomSampleInit', 100, 'ViT-B'),
    ('spt/vit-b_mae_cub_kmeans.py', 'SPT-Deep', 'KMeansInit', 20, 'ViT-B'),
    ('vpt/vit-b_mae_cub.py', 'VPT-Deep', 'UniformInit', 20, 'ViT-B'),
    ('linear/vit-xs_mae_digits.py', 'Linear', None, 0, 'custom'),
])
def test_recipes(path, method, initializer, num_prompts, arch):
    found = of(path)
    assert (found['method'], found['initializer'], found['num_prompts'], found['arch']) == (
        method, initializer, num_prompts, arch)
    assert found['config'] == path.split('/')[1].removesuffix('.py')


def test_the_task():
    cub = of('spt/vit-b_mae_cub.py')
    assert (cub['task'], cub['group'], cub['split']) == ('cub', 'FGVC', 'test')
    flowers = of('spt/vit-b_mae_flowers17.py')
    assert (flowers['task'], flowers['group'], flowers['split']) == ('CustomDataset flowers17', 'Other', 'test.txt')
    assert flowers['trained_on'] == dict(dataset='CustomDataset', split='train.txt')
    vtab = describe(dict(test_dataloader=dict(dataset=dict(
        type='RepeatDataset', dataset=dict(type='mmspt.VTAB1k', data_root='x', task='dsprites_loc', split='test')))))
    assert (vtab['task'], vtab['group'], vtab['split']) == ('vtab_dsprites_loc', 'Structured', 'test')


@pytest.mark.parametrize(('backbone', 'method', 'arch'), [
    (dict(type='VisionTransformer', arch='b', frozen_stages=12), 'Linear', 'ViT-B'),
    (dict(type='VisionTransformer', arch='large'), 'Full', 'ViT-L'),
    (dict(type='VisionTransformer', arch='large', frozen_stages=12), '12 blocks frozen', 'ViT-L'),
    (dict(type='mmspt.PromptedViT', num_prompts=0, frozen=False), 'Full', 'ViT-B'),
    (dict(type='mmspt.PromptedViT', frozen=False, patch_size=32), 'VPT-Deep, backbone tuned', 'ViT-B/32'),
    (dict(type='ResNet', depth=50), 'Full', 'ResNet'),
])
def test_other_backbones(backbone, method, arch):
    """Prompts without the hook start as VPT's."""
    found = describe(dict(model=dict(type='ImageClassifier', backbone=backbone)))
    assert (found['method'], found['arch']) == (method, arch)


def test_holes_and_test_time_augmentation():
    empty = describe(Config())
    assert (empty['task'], empty['pretraining'], empty['config']) == ('unknown', 'unknown', None)
    cfg = Config.fromfile(ROOT / 'configs/spt/vit-b_mae_cub.py')
    wrapped = Config(dict(cfg.to_dict(), model=dict(type='AverageClsScoreTTA', module=cfg.model.to_dict())),
                     cfg_text='', filename=str(ROOT / 'configs/spt/vit-b_mae_cub.py'))
    found = describe(wrapped, trained=False)
    assert found['tta'] and found['method'] == 'SPT-Deep' and found['config'] == 'vit-b_mae_cub'
    assert config_name('work_dirs/vit-b_mae_cub_test.py') == 'vit-b_mae_cub'  # tools/test.py's dump
    assert found['recipe'] is None and found['trained_on'] is None


def test_the_recipe_sees_what_seeds_must_share():
    """Rate, batch, prompts and split count; seed, workers, paths and the test do not."""
    base = of('spt/vit-b_mae_cub.py')['recipe']
    assert base['optim_wrapper.optimizer.lr'] == 5e-2
    for same in (dict(randomness=dict(seed=3)), {'train_dataloader.num_workers': 1},
                 {'train_dataloader.dataset.data_root': 'elsewhere'}, {'test_dataloader.batch_size': 1},
                 {'model.backbone.init_cfg.checkpoint': 'elsewhere.pth'}):
        assert of('spt/vit-b_mae_cub.py', **same)['recipe'] == base
    for key, changed in {'optim_wrapper.optimizer.lr': {'optim_wrapper.optimizer.lr': 1e-2},
                         'batch_size': {'train_dataloader.batch_size': 64},
                         'train.split': {'train_dataloader.dataset.split': 'val'},
                         'prompts.initializer.type': {'custom_hooks.0.initializer.type': 'mmspt.KMeansInit'}}.items():
        recipe = of('spt/vit-b_mae_cub.py', **changed)['recipe']
        assert {name for name in recipe if recipe[name] != base.get(name)} == {key}
    assert describe(Config.fromfile(ROOT / 'configs/spt/vit-b_mae_cub.py'), world_size=4)['recipe']['batch_size'] == 128
