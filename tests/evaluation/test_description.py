"""A config's place in the tables, for our recipes, MMPretrain's stock ones and configs with holes."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer

from helpers import ROOT
from mmspt.evaluation import describe_run
from mmspt.evaluation.description import arch_of, config_name, method_of, recipe_of
from mmspt.evaluation.method_names import unusual
from mmspt.models import PromptedViT
from mmspt.models.backbones.frozen_vit import FrozenViT
from mmspt.registry import MODELS


def of(path, **options):
    cfg = Config.fromfile(ROOT / 'configs' / path if '::' not in path else path)
    cfg.merge_from_dict(options)
    return describe_run(cfg)


@pytest.mark.parametrize(('path', 'method', 'initializer', 'num_prompts', 'arch'), [
    ('spt/vit-b_mae_cub.py', 'SPT-Deep', 'RandomSampleInit', 20, 'ViT-B'),
    ('spt/vit-b_mae_cub_shallow.py', 'SPT-Shallow', 'RandomSampleInit', 100, 'ViT-B'),
    ('vpt/vit-b_mae_cub.py', 'VPT-Deep', 'UniformInit', 20, 'ViT-B'),
    ('linear/vit-xs_mae_digits.py', 'Linear', None, 0, 'custom'),
    ('gatevpt/vit-b_mae_cub_spt.py', 'GateVPT', 'RandomSampleInit', 100, 'ViT-B'),
    ('vipamin/vit-b_mocov3_cub_shallow.py', 'VIPAMIN-Shallow', 'VIPAMINInit', 100, 'ViT-B'),
])
def test_recipes(path, method, initializer, num_prompts, arch):
    found = of(path)
    assert (found['method'], found['initializer'], found['num_prompts'], found['arch']) == (
        method, initializer, num_prompts, arch)
    assert found['config'] == path.split('/')[1].removesuffix('.py')


def test_the_task():
    cub = of('spt/vit-b_mae_cub.py')
    assert (cub['task'], cub['group'], cub['split']) == ('cub', 'FGVC', 'test')
    part = of('spt/vit-s_dinov2_cub100.py')  # 100 of the 200 species: no row of the paper's tables
    assert (part['task'], part['group'], part['split']) == ('cub, 100 classes', 'Other', 'test')
    flowers = of('spt/vit-b_mae_flowers17.py')
    assert (flowers['task'], flowers['group'], flowers['split']) == ('CustomDataset flowers17', 'Other', 'test.txt')
    assert flowers['trained_on'] == dict(dataset='CustomDataset', split='train.txt')


@pytest.mark.parametrize(('backbone', 'method', 'arch'), [
    (dict(type='VisionTransformer', arch='large'), 'Full', 'ViT-L'),
    (dict(type='VisionTransformer', arch='large', frozen_stages=12), '12 blocks frozen', 'ViT-L'),
    (dict(type='mmspt.PromptedViT', num_prompts=0, frozen=False), 'Full', 'ViT-B'),
    (dict(type='mmspt.PromptedViT', frozen=False, patch_size=32), 'VPT-Deep, backbone tuned', 'ViT-B/32'),
    (dict(type='VisionTransformer', arch=dict(num_layers=4), frozen_stages=4), 'Linear', 'custom'),
    (dict(type='GatedPromptedViT', arch='large', frozen=False), 'GateVPT, backbone tuned', 'ViT-L'),
    (dict(type='ResNet', depth=50, frozen_stages=1), '1 blocks frozen', 'ResNet'),
])
def test_other_backbones(backbone, method, arch):
    """Prompts without the hook start as VPT's."""
    found = describe_run(dict(model=dict(type='ImageClassifier', backbone=backbone)))
    assert (found['method'], found['arch']) == (method, arch)


@pytest.mark.parametrize(('short', 'long', 'name', 'depth'), [
    ('s', 'small', 'ViT-S', 8), ('deit-t', 'deit-tiny', 'DeiT-T', 12), ('dinov2-g', 'dinov2-giant', 'DINOv2-G', 40),
    ('eva-g', 'EVA-giant', 'EVA-G', 40), ('mocov3-s', 'mocov3-small', 'MoCo-v3-S', 12)])
def test_named_architectures_of_the_host(short, long, name, depth):
    """Both of its names give one row of a table, and all blocks frozen are a linear probe."""
    frozen = dict(type='VisionTransformer', frozen_stages=depth, patch_size=14)
    assert arch_of(dict(frozen, arch=short)) == arch_of(dict(frozen, arch=long)) == f'{name}/14'
    assert method_of(dict(frozen, arch=long), None) == 'Linear'
    assert method_of(dict(frozen, arch=long, frozen_stages=depth - 1), None) == f'{depth - 1} blocks frozen'


class Adapted(FrozenViT):
    """Somebody's own network on ours."""
    learnable_modules = ('adapter', )

    def __init__(self, num_prompts=0, **kwargs):
        super().__init__(**kwargs)
        self.adapter = torch.nn.Linear(8, 8)


class AdaptedPrompts(PromptedViT):
    learnable_modules = (*PromptedViT.learnable_modules, 'adapter')


class AllFrozen(VisionTransformer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.requires_grad_(False)


class OnlyBiases(VisionTransformer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.endswith('bias')


class Biases(PromptedViT):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.endswith('bias')


class Renamed(PromptedViT):
    pass


@pytest.mark.parametrize(('kind', 'options', 'method', 'said', 'num_prompts'), [
    (Adapted, {}, 'Adapted', 'Adapted', 0), (Adapted, dict(frozen=False), 'Full', 'Full', 0),
    (Adapted, dict(num_prompts=4), 'Adapted', 'Adapted', 4), (Renamed, dict(num_prompts=0), 'Linear', 'Linear', 0),
    (AdaptedPrompts, dict(num_prompts=3), 'VPT-Deep, AdaptedPrompts', 'VPT-Deep, AdaptedPrompts', 3),
    (Renamed, dict(num_prompts=3), 'VPT-Deep', 'VPT-Deep', 3), (FrozenViT, {}, 'Linear', 'Linear', 0),
    (Biases, dict(num_prompts=0), 'Biases', 'Linear', 0), (Adapted, dict(num_prompts=[2, 3]), 'Adapted', 'Adapted', 0),
    (AllFrozen, {}, 'Linear', 'Full', 0), (OnlyBiases, {}, 'OnlyBiases', 'Full', 0),
    (VisionTransformer, {}, 'Full', 'Full', 0), (VisionTransformer, dict(frozen_stages=2), 'Linear', 'Linear', 0),
    (VisionTransformer, dict(frozen_stages=1), '1 blocks frozen', '1 blocks frozen', 0),
    (FrozenViT, dict(frozen=False, stop_grad_conv1=True), 'Full', 'Full', 0),
])
def test_networks_of_others_are_named_by_what_trains(kind, options, method, said, num_prompts):
    """By the model, and without one as far as class and config say it."""
    small = dict(arch=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8), img_size=32, patch_size=16)
    model = SimpleNamespace(backbone=kind(**small, **options))
    cfg = dict(model=dict(type='ImageClassifier', backbone=dict(type=kind, **small, **options)))
    found = describe_run(cfg, model=model)
    assert (found['method'], found['num_prompts']) == (method, num_prompts)
    assert describe_run(cfg)['method'] == said


@pytest.mark.parametrize(('kind', 'num_prompts'), [('PromptedViT', 20), ('GatedPromptedViT', 100)])
def test_prompts_that_a_config_does_not_count(kind, num_prompts):
    backbone = MODELS.get(f'mmspt.{kind}')(arch=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8))
    assert backbone.num_prompts == num_prompts
    found = describe_run(dict(model=dict(type='ImageClassifier', backbone=dict(type=f'mmspt.{kind}'))))
    assert (found['num_prompts'], found['initializer']) == (num_prompts, 'UniformInit')


@pytest.mark.parametrize(('method', 'initializer', 'num_prompts', 'parts'), [
    ('SPT-Deep', 'RandomSampleInit', 20, []), ('SPT-Shallow', 'KMeansInit', 20, ['KMeansInit', '20 prompts']),
    ('VPT-Deep', 'NormalInit', 1, ['NormalInit', '1 prompt']), ('VPT-Deep, backbone tuned', 'UniformInit', 20, []),
    ('Linear', None, 0, []), ('GateVPT', 'UniformInit', 100, []), ('VIPAMIN-Shallow', 'VIPAMINInit', 100, [])])
def test_what_sets_prompts_apart(method, initializer, num_prompts, parts):
    assert unusual(method, initializer, num_prompts) == parts


def test_holes_and_test_time_augmentation():
    empty = describe_run(Config())
    assert (empty['task'], empty['pretraining'], empty['config']) == ('unknown', 'unknown', None)
    cfg = Config.fromfile(ROOT / 'configs/spt/vit-b_mae_cub.py')
    wrapped = Config(dict(cfg.to_dict(), model=dict(type='AverageClsScoreTTA', module=cfg.model.to_dict())),
                     cfg_text='', filename=str(ROOT / 'configs/spt/vit-b_mae_cub.py'))
    found = describe_run(wrapped, trained=False)
    assert found['tta'] and found['method'] == 'SPT-Deep' and found['config'] == 'vit-b_mae_cub'
    assert config_name('work_dirs/vit-b_mae_cub_test.py') == 'vit-b_mae_cub'  # tools/test.py's dump
    assert found['recipe'] is None and found['trained_on'] is None


def test_the_recipe_sees_what_seeds_must_share():
    """All that shapes the weights counts; seed, workers, folders, caches, test and resumption do not."""
    base = of('spt/vit-b_mae_cub.py')['recipe']
    assert base['optim_wrapper.optimizer.lr'] == 5e-2
    for same in (dict(randomness=dict(seed=3)), {'train_dataloader.num_workers': 1},
                 {'train_dataloader.dataset.pipeline.0': dict(
                     type='mmspt.LoadImageFromFile', cache='disk', cache_gib=1, cache_folder='there')},
                 {'train_dataloader.dataset.data_root': 'elsewhere'}, {'test_dataloader.batch_size': 1},
                 {'model.backbone.init_cfg.checkpoint': '/elsewhere/mae_pretrain_vit_base.pth'},
                 {'model.type': 'ImageClassifier'}, {'model.type': 'mmspt.ImageClassifier'},
                 dict(resume=True, load_from='run/epoch_3.pth')):
        assert of('spt/vit-b_mae_cub.py', **same)['recipe'] == base
    for key, changed in {'optim_wrapper.optimizer.lr': {'optim_wrapper.optimizer.lr': 1e-2},
                         'global_batch': {'train_dataloader.batch_size': 64},
                         'custom_hooks.0.initializer.type': {'custom_hooks.0.initializer.type': 'mmspt.KMeansInit'},
                         'model.backbone.init_cfg.checkpoint': {'model.backbone.init_cfg.checkpoint': 'other.pth'},
                         'model.head.loss.type': {'model.head.loss.type': 'LabelSmoothLoss'},
                         'model.train_cfg.augments.type': {'model.train_cfg': dict(augments=dict(type='Mixup'))},
                         'data_preprocessor.to_rgb': {'data_preprocessor.to_rgb': False},
                         'drop_last': {'train_dataloader.drop_last': False},
                         'max_epochs': {'train_cfg.max_epochs': 50},
                         'train.pipeline.1.scale': {'train_dataloader.dataset.pipeline.1.scale': 448}}.items():
        recipe = of('spt/vit-b_mae_cub.py', **changed)['recipe']
        differ = {name for name in recipe if recipe[name] != base.get(name)}
        assert differ == {key} | ({'param_scheduler.end'} if key == 'max_epochs' else set())
    cfg = Config.fromfile(ROOT / 'configs/spt/vit-b_mae_cub.py')
    cfg.optim_wrapper.accumulative_counts = 2
    assert describe_run(cfg, world_size=4)['recipe']['global_batch'] == 256


@pytest.mark.parametrize(('one', 'other', 'same'), [
    ('https://h.co/a/resolve/main/model.safetensors', 'https://h.co/b/resolve/main/model.safetensors', False),
    ('here/mae/epoch_300.pth', 'here/moco/epoch_300.pth', False),
    ('/a/checkpoint-799.pth.tar', '/b/checkpoint-799.pth.tar', False),
    ('/a/mae/epoch_300.pth', 'b/mae/epoch_300.pth', True),
    ('https://h.co/vit_model_b.pth', '/a/vit_model_b.pth', True),
])
def test_two_backbones_in_files_of_one_name(one, other, same):
    """Are no seeds of one setting."""
    recipes = [of('spt/vit-b_mae_cub.py', **{'model.backbone.init_cfg.checkpoint': path})['recipe']
               for path in (one, other)]
    assert (recipes[0] == recipes[1]) == same


def wrapped(*datasets, **more):
    return dict(dataset=dict(type='ConcatDataset', datasets=[dict(dataset) for dataset in datasets], **more))


CUB = dict(type='mmspt.CUB', data_root='/here/cub', split='test')


def test_data_sets_within_others():
    """One within is itself; several are a task of their own."""
    one = describe_run(dict(test_dataloader=wrapped(
        dict(type='mmspt.VTAB1k', data_root='x', task='dsprites_loc', split='test'))))
    assert (one['task'], one['group'], one['split']) == ('vtab_dsprites_loc', 'Structured', 'test')
    two = describe_run(dict(test_dataloader=wrapped(CUB, CUB | dict(type='mmspt.StanfordDogs')),
                        train_dataloader=wrapped(CUB | dict(split='train'), CUB | dict(split='val'))))
    assert (two['task'], two['group'], two['split']) == ('cub + dogs', 'Other', 'test')
    assert two['trained_on'] == dict(dataset='CUB', split='train + val')


def test_folders_of_data_sets_within_others_are_not_in_the_recipe():
    here, there = (describe_run(dict(train_dataloader=wrapped(
        dict(type='CustomDataset', data_root=root, ann_file=f'{root}/{name}'))))['recipe']
        for root, name in (('/here', 'train.txt'), ('/the/re', 'train.txt')))
    assert here == there and here['train.datasets.0.ann_file'] == 'train.txt'
    other = describe_run(dict(train_dataloader=wrapped(dict(type='CustomDataset', ann_file='fold_2/train.txt'))))
    assert other['recipe']['train.datasets.0.ann_file'] == 'fold_2/train.txt'


def test_objects_have_no_address_in_the_recipe():
    recipes = [describe_run(dict(custom_hooks=[object()]))['recipe'] for _ in range(2)]
    assert recipes[0] == recipes[1] and ' at ' not in str(recipes)


@pytest.mark.parametrize(('train', 'shared'), [
    (CUB | dict(split='train'), False), (CUB | dict(data_root='/there'), False),
    (dict(type='RepeatDataset', times=2, dataset=CUB | dict(pipeline=[])), True)])
def test_training_on_what_is_tested_is_told(train, shared):
    found = describe_run(dict(test_dataloader=dict(dataset=CUB), train_dataloader=dict(dataset=train)))
    assert found['trained_on'].get('tested', False) is shared


@pytest.mark.parametrize(('plan', 'scheduler', 'end'), [
    (dict(max_epochs=9), {}, 9), (dict(max_epochs=9), dict(end=4), 4), (dict(max_iters=50), dict(by_epoch=False), 50)])
def test_a_schedule_without_an_end_ends_with_the_run(plan, scheduler, end):
    """So its runs are seeds of those whose config names the same end."""
    recipe = recipe_of(dict(train_cfg=plan, param_scheduler=dict(type='mmspt.WarmupCosineLR') | scheduler))
    assert recipe['param_scheduler.end'] == end
    assert 'param_scheduler.0.end' not in recipe_of(dict(train_cfg=plan, param_scheduler=[dict(type='LinearLR')]))


def test_the_recipe_has_the_normalization_that_acts():
    """MMEngine passes over data_preprocessor where the model has its own."""
    cfg = Config(dict(data_preprocessor=dict(mean=[1.]), model=dict(type='A', data_preprocessor=dict(mean=[2.]))))
    recipe = recipe_of(cfg)
    assert recipe['data_preprocessor.mean.0'] == 2. and cfg.model.data_preprocessor.mean == [2.]
    assert not any(key.startswith('model.data_preprocessor') for key in recipe)
