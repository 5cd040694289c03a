"""Every config parses and builds; the recipes are complete, follow one protocol and say what is known of them."""
import copy
import math
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from modelindex.load_model_index import load as load_index
from PIL import Image

from helpers import ROOT
from layouts import FOLDERS
from mmspt.datasets.tasks import FGVC, TASKS
from mmspt.engine.launch import merge_options
from mmspt.evaluation import PUBLISHED
from mmspt.prompts import threads
from mmspt.search.space import read_space

PRETRAINING = dict(mae='MAE', mocov3='MoCo-v3', sup='supervised')
STUDY = {method: f'configs/study/{method}.py' for method in (
    'linear', 'finetune', 'vpt', 'vpt_shallow', 'spt', 'spt_shallow', 'gatevpt', 'vipamin')}
PRETRAIN = [f'configs/pretrain/{name}.py' for name in (
    'vit-8x128_mae_cifar10', 'vit-8x128_mocov3_cifar10', 'vit-xs_mae_digits')]
ZOO = [model.config for model in load_index(str(ROOT / 'model-index.yml')).models]
CONFIGS = [*ZOO, *STUDY.values(), *PRETRAIN]  # others may lie beside them: a user's own
NAME = re.compile(rf'configs/(\w+)/(vit-[blh]_(?:mae|mocov3|sup))_({"|".join(TASKS)})(_shallow|_spt|)\.py')
RECIPES = {path: match.groups() for path in ZOO if (match := NAME.fullmatch(path))}
"""Path -> folder, backbone, task, suffix."""


HUB_TASK = re.compile(r'_(dinov2|dinov2reg|clip)_(cars|dogs|flowers102|nabirds)\.py')
"""Recipes that differ from their neighbour on CUB in two lines."""


@cache
def load(path):
    """Parse a config, which the tests leave as it is."""
    return Config.fromfile(ROOT / path)


def build_model(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def build_scheduler(cfg, wrapper, epoch_length):
    cfg = dict(cfg)
    cfg.pop('_scope_', None)
    convert, cls = cfg.pop('convert_to_iter_based', False), PARAM_SCHEDULERS.get(cfg.pop('type'))
    return cls.build_iter_from_epoch(wrapper, epoch_length=epoch_length, **cfg) if convert else cls(wrapper, **cfg)


def test_complete():
    """24 tasks for each of three backbones, and shallow, VPT, BPT, linear and fine-tuned for the fine-grained ones."""
    backbones = [f'vit-b_{ssl}' for ssl in PRETRAINING]
    expected = {('spt', backbone, task, '') for backbone in backbones for task in TASKS}
    expected |= {(folder, backbone, task, suffix) for backbone in backbones for task in FGVC for folder, suffix in (
        ('spt', '_shallow'), ('vpt', ''), ('vpt', '_shallow'), ('bpt', ''), ('bpt', '_shallow'), ('linear', ''),
        ('finetune', ''))}
    expected |= {(folder, backbone, 'cub', suffix) for backbone in backbones[:2] for folder, suffix in (
        ('gatevpt', ''), ('vipamin', ''), ('vipamin', '_shallow'))}
    expected |= {(folder, 'vit-b_mae', 'cub', '_spt') for folder in ('gatevpt', 'bpt')}
    expected |= {('spt', f'vit-{size}_mae', 'cub', '') for size in 'lh'}
    assert set(RECIPES.values()) == expected


@pytest.mark.parametrize('path', [
    pytest.param(path, marks=pytest.mark.slow if HUB_TASK.search(path) or RECIPES.get(path, '---')[2] == 'dogs' else ())
    for path in CONFIGS if path not in RECIPES or RECIPES[path][2] in ('cub', 'dogs', 'vtab_svhn')])
def test_builds(path):
    """All parts of a config of each kind; it trains what its folder says, and nothing is chosen by the test set."""
    cfg = load(path)
    _, folder, name = path.split('/')
    method = name.removesuffix('.py') if folder == 'study' else folder
    device = 'cpu' if folder == 'pretrain' else 'meta'
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        model = MODELS.build(cfg.model)
        for hook in cfg.get('custom_hooks', []):
            HOOKS.build(hook)
        for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            dataset = (cfg.get(field) or {}).get('dataset', {})
            assert not dataset or DATASETS.get(dataset['type']) is not None
            assert field == 'test_dataloader' or not {'test', 'test.txt'} & {
                dataset.get('split'), dataset.get('ann_file')}
            for transform in dataset.get('pipeline', []):
                assert TRANSFORMS.build(transform) is not None
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
        for scheduler in schedulers:
            built = build_scheduler(dict(end=cfg.train_cfg.max_epochs) | scheduler, wrapper, epoch_length=3)
            assert all(math.isfinite(value) for value in built.get_last_value())
    trained = {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith('head.')}
    gated = {'backbone.prompts.tokens', 'backbone.prompts.gate_logits', 'backbone.prompts.temperatures'}
    bases = range(1) if name.endswith('_shallow.py') else range(8, 12)  # BPT-Deep trains those of the last third
    factors = {'backbone.prompts.coefficients', *(f'backbone.prompts.bases.{i}' for i in bases)}
    expected = dict(linear=set(), gatevpt=gated, bpt=factors).get(method, {'backbone.prompts.tokens'})
    assert trained == expected or (method in ('pretrain', 'finetune') and len(trained) > 50)


BPT = {  # (rate, decay of prompts, of the head) of deep and shallow: script/ of github.com/WangYZ1608/BPT at 2f1ca0c
    ('mae', 'cub'): ((0.05, 5e-3, 0.5), (0.05, 5e-3, 0.5)), ('mae', 'nabirds'): ((0.05, 5e-3, 0.3), (0.05, 5e-3, 0.1)),
    ('mae', 'dogs'): ((0.05, 5e-3, 0.1), (0.05, 5e-3, 0.1)), ('mae', 'cars'): ((0.05, 5e-3, 0.1), (0.05, 2e-3, 0.1)),
} | {key: (shallow, shallow) for key, shallow in {  # deep not found, or the same
    ('mae', 'flowers102'): (0.1, 5e-3, 1.), ('mocov3', 'cub'): (0.05, 5e-3, 0.1), ('mocov3', 'dogs'): (0.05, 2e-3, 0.1),
    ('mocov3', 'nabirds'): (0.05, 1e-3, 0.05), ('mocov3', 'flowers102'): (0.05, 1e-3, 0.05),
    ('mocov3', 'cars'): (0.05, 5e-3, 0.1),  # not found: CUB's
    ('sup', 'cub'): (5e-3, 0.1, 10.), ('sup', 'nabirds'): (0.01, 0.05, 5.), ('sup', 'flowers102'): (0.01, 5e-4, 10.),
    ('sup', 'dogs'): (5e-3, 0.01, 3.), ('sup', 'cars'): (0.02, 0.01, 3.)}.items()}

GUESSED = ('mae', 'flowers102'), ('mocov3', 'flowers102')
"""Where SPT's recipes, and those that differ from them by their prompts alone, have BPT's rate and decays."""


@pytest.mark.parametrize('path', RECIPES)
def test_recipe(path):
    """Task, backbone and prompts are what the name says; the protocol is the paper's."""
    (folder, model, task, suffix), cfg = RECIPES[path], load(path)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == TASKS[task].num_classes
    backbone, head, ssl = cfg.model.backbone, cfg.model.head, model.split('_')[1]
    assert cfg.pretraining == PRETRAINING[ssl]
    # Vision Transformer (arXiv 2010.11929), table 1
    assert (backbone.arch, backbone.patch_size, head.in_channels) == {
        'b': ('base', 16, 768), 'l': ('large', 16, 1024), 'h': ('huge', 14, 1280)}[model[4]]
    assert (backbone.out_type, backbone.final_norm) == (
        ('avg_featmap', False) if ssl == 'mae' else ('cls_token', True))
    assert head.init_cfg == dict(type='TruncNormal', layer='Linear', std=0.01 if ssl == 'mocov3' else 0.02, bias=0.)
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='checkpoints/' + {
        'vit-b_mae': 'mae_pretrain_vit_base.pth', 'vit-l_mae': 'mae_pretrain_vit_large.pth',
        'vit-h_mae': 'mae_pretrain_vit_huge.pth', 'vit-b_mocov3': 'linear-vit-b-300ep.pth.tar',
        'vit-b_sup': 'vit_base_patch16_224.augreg_in21k.safetensors'}[model])
    shallow, prompted = suffix == '_shallow', folder not in ('linear', 'finetune')
    assert backbone.type == 'mmspt.PromptedViT' and backbone.prompt_type == ('shallow' if shallow else 'deep')
    assert backbone.num_prompts == prompted * (100 if shallow or folder == 'gatevpt' else 50 if folder == 'bpt' else 20)
    factors = dict(type=f'mmspt.{"Shallow" if shallow else "Deep"}BilinearPrompts',
                   rank=25 if (ssl, task) == ('sup', 'cub') else 75 if shallow else 50)
    assert (backbone.get('prompts'), backbone.get('prompt_drop_rate', 0.)) == dict(
        gatevpt=(dict(type='mmspt.GatedPrompts'), 0.1), bpt=(factors, 0.)).get(folder, (None, 0.))
    assert backbone.get('frozen', True) == (folder != 'finetune')
    hook, = cfg.custom_hooks
    assert hook == dict(type='mmspt.PromptInitHook', initializer={
        'vpt': dict(type='mmspt.UniformInit'), 'vipamin': dict(type='mmspt.VIPAMINInit', k=32, lam=0.5),
        'gatevpt': dict(type='mmspt.RandomSampleInit' if suffix == '_spt' else 'mmspt.UniformInit'),
        'bpt': dict(type='mmspt.' + {'': 'Whitened', '_shallow': 'Drawn', '_spt': 'RandomSample'}[suffix] + 'Init'),
    }.get(folder, dict(type='mmspt.RandomSampleInit')))
    for field, split in (('train_dataloader', 'trainval'), ('test_dataloader', 'test')):
        given = cfg[field].dataset
        assert (given.type, given.data_root, given.split) == (
            f'mmspt.{TASKS[task].dataset}', f'data/{FOLDERS.get(task, "vtab-1k")}', split)
        assert given.get('task') == (task.removeprefix('vtab_') if task.startswith('vtab_') else None)
    # 100 epochs of full batches of 32, of 64 for GateVPT; no look at the test set but the last
    batch_size = 64 if folder == 'gatevpt' else 32
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == batch_size
    assert cfg.train_dataloader.drop_last
    assert cfg.train_dataloader.sampler.shuffle and not cfg.test_dataloader.sampler.shuffle
    assert not cfg.test_dataloader.get('drop_last')
    assert cfg.train_cfg.max_epochs == 100 and 'end' not in cfg.param_scheduler
    assert cfg.param_scheduler.warmup == (5 if folder == 'finetune' else 10)
    assert cfg.param_scheduler.type == 'mmspt.WarmupCosineLR' and cfg.param_scheduler.convert_to_iter_based
    peak = dict(gatevpt=0.1, vipamin=0.0625, finetune=6.25e-5).get(folder, 1e-3 if ssl == 'sup' else 5e-2)
    if folder == 'bpt' or (folder in ('spt', 'vpt', 'linear') and (ssl, task) in GUESSED):
        peak = BPT[ssl, task][shallow][0]
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(peak)
    assert not {'val_dataloader', 'val_evaluator', 'val_cfg'} & cfg.keys()  # absent, so that a child may add them
    assert cfg.test_cfg is not None and cfg.test_evaluator == dict(type='Accuracy', topk=(1, ))
    # the mean and standard deviation of ImageNet, in RGB
    np.testing.assert_allclose(cfg.data_preprocessor.mean, np.multiply((0.485, 0.456, 0.406), 255))
    np.testing.assert_allclose(cfg.data_preprocessor.std, np.multiply((0.229, 0.224, 0.225), 255))
    assert cfg.data_preprocessor.to_rgb


@pytest.mark.parametrize('path', [path for path in CONFIGS if re.search('vit-(b|l|h)_', path)])
def test_comment_says_what_is_known(path):
    lines = (ROOT / path).read_text().splitlines()
    comment = '\n'.join(line for line in lines[:[line.startswith('_base_') for line in lines].index(True)])
    assert all(line.startswith('# ') for line in comment.splitlines())
    assert re.match(rf'# tools/dist_train\.sh {re.escape(path)} [18]$', lines[0])
    assert re.search(r'^# published: \d\d\.\d\d|published accuracy(?: of this recipe)?: not found', comment, re.M)


@pytest.mark.parametrize('path', [
    path for path, (folder, backbone, task, suffix) in RECIPES.items()
    if task in FGVC and backbone in ('vit-b_mae', 'vit-b_mocov3', 'vit-b_sup') and suffix != '_spt'
    and folder in ('spt', 'vpt', 'bpt', 'gatevpt', 'finetune')])
def test_headers_have_the_published_accuracy_of_their_task(path):
    """That of docs/published.md, 'not found' where it has none; three seeds of a recipe stand instead of their mean."""
    folder, backbone, task, suffix = RECIPES[path]
    kind = 'Shallow' if suffix else 'Deep'
    method = dict(gatevpt='GateVPT', finetune='Full').get(folder, f'{folder.upper()}-{kind}')
    rows = [row.values for row in PUBLISHED if (row.method, row.pretraining, row.task) == (
        method, PRETRAINING[backbone.split('_')[1]], task)]
    expected = f'# published: {" / ".join(f"{value:.2f}" for value in max(rows, key=len))} %' if rows else 'not found'
    assert expected in (ROOT / path).read_text().partition('_base_')[0]


def groups(path, options=None):
    """Parameter name -> (rate, decay) as the config's optimizer wrapper has it."""
    cfg = copy.deepcopy(load(path))
    cfg.merge_from_dict(options or {})
    model = build_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (group['lr'], group['weight_decay'])
            for group in wrapper.optimizer.param_groups for p in group['params'] if p.requires_grad}


@pytest.mark.parametrize(('path', 'rate', 'head_decay'), [
    ('configs/spt/vit-b_mae_cub.py', 5e-2, 0.5), ('configs/spt/vit-b_sup_vtab_dmlab.py', 1e-3, 3.0),
    ('configs/linear/vit-b_sup_cub.py', 1e-3, 3.0)])
def test_the_authors_decay_by_parameter_kind(path, rate, head_decay):
    prompts = {} if 'linear' in path else {'backbone.prompts.tokens': (rate, 0.01)}
    assert groups(path) == prompts | {'head.fc.weight': (rate, head_decay), 'head.fc.bias': (rate, 0.)}


@pytest.mark.parametrize(('path', 'kind', 'rate', 'decay'), [
    ('configs/gatevpt/vit-b_mae_cub.py', 'SGD', 0.1, 0.), ('configs/gatevpt/vit-xs_mae_digits.py', 'SGD', 0.1, 0.),
    ('configs/vipamin/vit-b_mae_cub.py', 'AdamW', 0.0625, 0.01)])
def test_optimizers_of_the_rivals(path, kind, rate, decay):
    """One decay for prompts and head; none for biases, gates and temperatures, whatever a search sets for the rest."""
    optimizer = load(path).optim_wrapper.optimizer
    assert optimizer == dict(type=kind, lr=rate, weight_decay=decay) | (dict(momentum=0.9) if kind == 'SGD' else {})
    gates = {'backbone.prompts.gate_logits', 'backbone.prompts.temperatures'} if kind == 'SGD' else set()
    assert groups(path) == {'backbone.prompts.tokens': (rate, decay), 'head.fc.weight': (rate, decay),
                            'head.fc.bias': (rate, 0.)} | dict.fromkeys(gates, (rate, 0.))
    searched = groups(path, {'optim_wrapper.optimizer.weight_decay': 0.3})
    assert {name for name, (_, decay) in searched.items() if decay == 0.3} == {
        'backbone.prompts.tokens', 'head.fc.weight'}


@pytest.mark.parametrize('path', ['configs/finetune/vit-b_mae_cub.py', 'configs/finetune/vit-b_mocov3_cub.py'])
def test_finetuning_rates_fall_towards_the_input(path):
    """0.65 a block below 2e-3 * 32 / 1024; no decay for norms, biases, CLS and positions."""
    given = groups(path)
    last = 'ln2' if 'mae' in path else 'ln1'
    assert len(given) == 2 + 2 + 12 * 12 + 2 + 2  # CLS and positions, patch embedding, blocks, norm, head
    for name, (rate, decay) in given.items():
        block = re.search(r'layers\.(\d+)\.', name)
        depth = int(block[1]) + 1 if block and name.startswith('backbone.layers') else (
            13 if name.startswith(('head.', f'backbone.{last}.')) else 0)
        assert rate == pytest.approx(6.25e-5 * 0.65**(13 - depth)), name
        spared = name.endswith('.bias') or '.ln' in name or name in ('backbone.cls_token', 'backbone.pos_embed')
        assert decay == (0. if spared else 0.05), name


def test_finetuning_trains_all_of_the_network():
    """A small network of the same config: stochastic depth, and a gradient for every weight."""
    cfg = copy.deepcopy(load('configs/finetune/vit-b_mae_cub.py'))
    cfg.merge_from_dict({'model.backbone.init_cfg': None, 'model.backbone.img_size': 32, 'model.head.in_channels': 32})
    cfg.model.backbone.arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
    model = MODELS.build(cfg.model).train()
    dropping = [m for m in model.modules() if type(m).__name__ == 'DropPath' and m.drop_prob > 0]
    assert len(dropping) == 4  # attention and MLP of the second and third block; the first has rate 0
    for module in dropping:
        module.drop_prob = 0.
    model.head.fc(model.backbone(torch.randn(4, 3, 32, 32))[-1]).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_stock_configs():
    """Layer-wise decay leaves prompts at the full rate; MoCo-v3's backbone keeps its arguments."""
    assert groups('configs/spt/vit-b_mae_in1k_stock.py') == {
        'backbone.prompts.tokens': (2e-3, 0.05), 'head.fc.weight': (2e-3, 0.05), 'head.fc.bias': (2e-3, 0.)}
    backbone = load('configs/spt/vit-b_mocov3_in1k_stock.py').model.backbone
    assert backbone.stop_grad_conv1 and backbone.frozen_stages == 12
    assert set(groups('configs/spt/vit-b_mocov3_in1k_stock.py')) == {
        'backbone.prompts.tokens', 'head.layers.head.weight', 'head.layers.head.bias'}


@pytest.mark.parametrize('task', ['digits', 'flowers17'])
@pytest.mark.parametrize('folder', ['vpt', 'gatevpt', 'vipamin'])
def test_small_recipes_differ_by_method_alone(folder, task):
    """Same images, length, backbone and number of prompts as SPT's; its 256 patches leave VIPAMIN no direction."""
    cfg, spt = load(f'configs/{folder}/vit-xs_mae_{task}.py'), load(f'configs/spt/vit-xs_mae_{task}.py')
    for field in ('param_scheduler', 'train_cfg', 'data_preprocessor', 'val_dataloader', 'test_dataloader'):
        assert cfg[field] == spt[field], field
    assert cfg.model.head == spt.model.head and cfg.train_dataloader.dataset == spt.train_dataloader.dataset
    changed = {key for key in cfg.model.backbone.keys() | spt.model.backbone
               if cfg.model.backbone.get(key) != spt.model.backbone.get(key)}
    assert changed == ({'prompts', 'prompt_drop_rate'} if folder == 'gatevpt' else set())
    assert cfg.train_dataloader.batch_size == (64 if folder == 'gatevpt' else 32)
    hook, = cfg.custom_hooks
    assert hook.initializer == {
        'vipamin': dict(type='mmspt.VIPAMINInit', k=32, lam=0.5 if task == 'digits' else 0.)}.get(
            folder, dict(type='mmspt.UniformInit'))


@pytest.mark.parametrize('path', [
    path for path, (folder, *_, suffix) in RECIPES.items() if folder == 'bpt' and suffix != '_spt'])
def test_bpts_rates_and_what_its_headers_say(path):
    """Rates by task, as published; what was not found is said."""
    _, backbone, task, suffix = RECIPES[path]
    ssl = backbone.split('_')[1]
    rate, decay, head_decay = BPT[ssl, task][suffix == '_shallow']
    given = load(path).optim_wrapper
    assert (given.optimizer.lr, given.optimizer.weight_decay, given.paramwise_cfg.head_decay) == (
        rate, decay, head_decay)
    comment = (ROOT / path).read_text().partition('_base_')[0].replace('\n# ', ' ')
    released = task != 'cars' or ssl != 'mocov3' if suffix else (
        task != 'flowers102' if ssl == 'mae' else (ssl, task) == ('mocov3', 'dogs'))
    assert ('published (github.com/WangYZ1608/BPT at 2f1ca0c' in comment) == released
    assert (', not searched; not yet run here' in comment) == (not released) and 'not yet run here' in comment


@pytest.mark.parametrize('path', [
    path for path, (folder, backbone, task, _) in RECIPES.items()
    if folder == 'spt' and backbone in ('vit-b_mae', 'vit-b_mocov3') and task in FGVC])
def test_spts_rates_and_whose_they_are(path):
    """Those of MAE on CUB, but BPT's where photographs did not contradict them; the header says so."""
    _, backbone, task, _ = RECIPES[path]
    guessed = (backbone.split('_')[1], task) in GUESSED
    given = load(path).optim_wrapper
    assert (given.optimizer.lr, given.optimizer.weight_decay, given.paramwise_cfg.head_decay) == (
        BPT[backbone.split('_')[1], task][1] if guessed else (0.05, 0.01, 0.5))
    comment = (ROOT / path).read_text().partition('_base_')[0].replace('\n# ', ' ')
    assert ('searched by the same author for a neighbouring method' in comment) == guessed


@pytest.mark.parametrize('path', [path for path in ZOO if path.startswith('configs/bpt/')])
def test_bpts_rates_lie_within_what_a_search_tries(path):
    cfg = load(path)
    for parameter in read_space(cfg, None, cfg.search_space):
        value = cfg
        for key in parameter.key.split('.'):
            value = value[key]
        assert parameter.low <= value <= parameter.high, parameter.key


def test_bpt_trains_factors_with_the_prompts_decay():
    """A of every block, B of the last third; the frozen bases are in no group."""
    factors = ['backbone.prompts.coefficients', *(f'backbone.prompts.bases.{i}' for i in range(8, 12))]
    assert groups('configs/bpt/vit-b_mae_cub.py') == dict.fromkeys(factors, (5e-2, 5e-3)) | {
        'head.fc.weight': (5e-2, 0.5), 'head.fc.bias': (5e-2, 0.)}


@pytest.mark.parametrize(('task', 'size', 'classes'), [
    ('digits', 56, 10), ('flowers17', 112, 17), ('cub100', 112, 100)])
def test_small_recipes_of_bpt(task, size, classes, tmp_path):
    """The encoder of make quickstart, images of the size that it expects; the digits as SPT's recipe has them."""
    cfg, spt = load(f'configs/bpt/vit-s_dinov2_{task}.py'), load('configs/spt/vit-s_dinov2_digits.py')
    backbone = cfg.model.backbone
    assert (backbone.img_size, backbone.patch_size, cfg.model.head.num_classes) == (size, 14, classes)
    assert backbone.init_cfg == spt.model.backbone.init_cfg and cfg.data_preprocessor.num_classes == classes
    assert build_model(cfg).backbone.prompts.shape == (12, 50, 384)
    Image.fromarray(np.zeros((227, 250, 3), np.uint8)).save(tmp_path / 'image.png')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if name in cfg and task != 'digits':
            item = dict(img_path=str(tmp_path / 'image.png'))
            for step in cfg[name].dataset.pipeline:
                item = TRANSFORMS.build(step)(item)
            assert item['inputs'].shape == (3, size, size)
    lists = [cfg[f'{split}_dataloader'].dataset.get('ann_file') for split in ('train', 'test')]
    assert lists == (['train.txt', 'test.txt'] if task == 'flowers17' else [None, None])
    if task == 'digits':
        other = load('configs/bpt/vit-s_dinov2_digits_spt.py')  # another start and rate, nothing else
        for field in ('param_scheduler', 'train_cfg', 'data_preprocessor', 'train_dataloader', 'val_dataloader'):
            assert cfg[field] == spt[field] == other[field], field
        assert other.model == cfg.model and other.custom_hooks == spt.custom_hooks != cfg.custom_hooks


RATES = (0.00625, 0.0125, 0.03125, 0.0625, 0.125, 0.3125, 0.625)  # (.05, .1, .25, .5, 1, 2.5, 5) * 32 / 256
K, LAM = 'custom_hooks.0.initializer.k', 'custom_hooks.0.initializer.lam'
LR, DECAY = 'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay'
HEAD_DECAY = 'optim_wrapper.paramwise_cfg.head_decay'


@pytest.mark.parametrize(('path', 'expected'), [
    ('gatevpt/vit-b_mae_cub', {
        LR: (0.01, 10.), DECAY: (0, 1e-4, 1e-3, 1e-2), 'model.backbone.prompts.gate_start': (-10, -5, -1)}),
    ('vipamin/vit-b_mocov3_cub', {LR: RATES, K: (2, 8, 32, 128), LAM: (0, 0.5, 1)}),
    ('vipamin/vit-xs_mae_digits', {LR: RATES, K: (2, 8, 32), LAM: (0, 0.5, 1)}),
    ('vipamin/vit-xs_mae_flowers17', {LR: RATES, K: (2, 8, 32, 128)}),
    ('bpt/vit-b_mae_dogs_shallow', {LR: (1e-3, 0.2), DECAY: (5e-4, 0.1), HEAD_DECAY: (0.01, 10)}),
    ('study/spt', {LR: (0.01, 0.03, 0.1, 0.3, 1, 3)})])
def test_search_spaces(path, expected):
    """The rivals bring their own, inherited or replaced."""
    cfg = load(f'configs/{path}.py')
    assert {p.key: p.choices or (p.low, p.high) for p in read_space(cfg, None, cfg.search_space)} == expected


HUB = {  # model -> the repository, (width, blocks, patch size), (registers, layer scale, pre-norm)
    'vit-s_dinov2': ('facebook/dinov2-small', (384, 12, 14), (0, True, False)),
    'vit-b_dinov2': ('facebook/dinov2-base', (768, 12, 14), (0, True, False)),
    'vit-l_dinov2': ('facebook/dinov2-large', (1024, 24, 14), (0, True, False)),
    'vit-s_dinov2reg': ('facebook/dinov2-with-registers-small', (384, 12, 14), (4, True, False)),
    'vit-b_dinov2reg': ('facebook/dinov2-with-registers-base', (768, 12, 14), (4, True, False)),
    'vit-l_dinov2reg': ('facebook/dinov2-with-registers-large', (1024, 24, 14), (4, True, False)),
    'vit-b_clip': ('openai/clip-vit-base-patch16', (768, 12, 16), (0, False, True)),
    'vit-l_clip': ('openai/clip-vit-large-patch14', (1024, 24, 14), (0, False, True)),
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # openai/CLIP


@pytest.mark.parametrize(('name', 'task'), [
    pytest.param(name, task, marks=() if task == 'cub' else pytest.mark.slow) for name in HUB for task in FGVC])
def test_recipes_of_hub_checkpoints(name, task):
    """They differ from the supervised recipe by the network, its images' statistics, rate and decay of the head."""
    cfg, base = load(f'configs/spt/{name}_{task}.py'), load(f'configs/spt/vit-b_sup_{task}.py')
    repository, sizes, (registers, scaled, clip) = HUB[name]
    vit = build_model(cfg).backbone
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=f'hf://{repository}')
    assert (vit.embed_dims, vit.num_layers, vit.patch_size[0]) == sizes and vit.layers[0].attn.head_dims == 64
    assert (vit.num_registers, vit.num_extra_tokens) == (registers, 1 + registers)
    assert hasattr(vit.layers[0].attn.gamma1, 'weight') == scaled and hasattr(vit.pre_norm, 'weight') == clip
    assert vit.ln1.eps == (1e-5 if clip else 1e-6) and (vit.patch_embed.projection.bias is None) == clip
    assert type(vit.layers[0].ffn.layers[0][1]).__name__ == ('QuickGELU' if clip else 'GELU')
    assert cfg.model.head == base.model.head | dict(in_channels=sizes[0])
    given = cfg.data_preprocessor
    np.testing.assert_allclose(given.mean, np.multiply(CLIP_MEAN if clip else (0.485, 0.456, 0.406), 255), atol=1e-3)
    np.testing.assert_allclose(given.std, np.multiply(CLIP_STD if clip else (0.229, 0.224, 0.225), 255), atol=1e-3)
    assert cfg.optim_wrapper == base.optim_wrapper | dict(
        optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.01),
        paramwise_cfg=dict(bias_decay_mult=0., flat_decay_mult=0., head_decay=0.01))
    for field in ('custom_hooks', 'param_scheduler', 'train_cfg', 'train_dataloader', 'test_dataloader'):
        assert cfg[field] == base[field], field
    assert 'not searched; not yet run here' in (ROOT / f'configs/spt/{name}_{task}.py').read_text()


def test_the_hubs_mae_differs_by_its_file():
    """And by the name of its weights: they are not the paper's, and results must not stand in its row."""
    cfg, base = load('configs/spt/vit-b_mae_hf_cub.py').to_dict(), load('configs/spt/vit-b_mae_cub.py').to_dict()
    assert cfg.pop('pretraining') == 'MAE of the hub' != base.pop('pretraining')
    assert cfg['model']['backbone'].pop('init_cfg')['checkpoint'] == 'hf://facebook/vit-mae-base'
    del base['model']['backbone']['init_cfg']
    assert cfg == base


def test_augmentation():
    """Random crops and flips for the fine-grained tasks, none for VTAB-1k; bicubic, 224 pixels."""
    crop = dict(type='CenterCrop', crop_size=224)
    bicubic = dict(backend='torch', interpolation='bicubic')
    fgvc = load('configs/spt/vit-b_sup_cars.py')
    vtab = load('configs/spt/vit-b_sup_vtab_svhn.py')
    read, *train, pack = fgvc.train_dataloader.dataset.pipeline
    assert train == [dict(type='mmspt.RandomResizedCrop', scale=224, **bicubic),
                     dict(type='RandomFlip', prob=0.5, direction='horizontal')]
    assert fgvc.test_dataloader.dataset.pipeline == [
        read, dict(type='mmspt.ResizeEdge', scale=256, edge='short', **bicubic), crop, pack]
    for loader in (vtab.train_dataloader, vtab.test_dataloader):
        assert loader.dataset.pipeline == [
            read, dict(type='mmspt.ResizeEdge', scale=224, edge='short', **bicubic), crop, pack]


@pytest.mark.parametrize(('cores', 'processes', 'workers'), [
    (16, 1, 8), (6, 1, 6), (16, 8, 2), (1, 1, 1), (4, 8, 1)])
def test_workers(cores, processes, workers, monkeypatch):
    """The cores at hand, shared by the processes of torchrun; the command line counts."""
    monkeypatch.setattr('os.sched_getaffinity', lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    for path in ('spt/vit-b_mae_cub', 'spt/vit-b_sup_vtab_svhn', 'spt/vit-b_mae_flowers17'):
        cfg = Config.fromfile(ROOT / f'configs/{path}.py')
        assert cfg.train_dataloader.num_workers == cfg.test_dataloader.num_workers == workers
        assert 'os' not in cfg and Config.fromstring(cfg.pretty_text, '.py').workers == workers
    merge_options(cfg, {'train_dataloader.num_workers': 9})
    assert cfg.train_dataloader.num_workers == 9
    merge_options(cfg, {'workers': 5})
    assert (cfg.train_dataloader.num_workers, cfg.test_dataloader.num_workers) == (9, 5)


@pytest.mark.parametrize(('quota', 'variables', 'workers'), [
    ('max 100000', {}, 8), ('200000 100000', {}, 2), ('50000 100000', {}, 1),
    ('max 100000', dict(SLURM_CPUS_PER_TASK='3'), 3), ('max 100000', dict(OMPI_COMM_WORLD_LOCAL_SIZE='4'), 4),
    ('max 100000', dict(LOCAL_WORLD_SIZE=''), 8),
    ('max 100000', dict(SLURM_CPUS_PER_TASK='6', LOCAL_WORLD_SIZE='3'), 2),
    ('max 100000', dict(SLURM_CPUS_PER_TASK='4', LOCAL_WORLD_SIZE='8'), 1),
    ('max 100000', dict(SLURM_CPUS_PER_TASK='6', OMPI_COMM_WORLD_LOCAL_SIZE='3'), 6)])
def test_workers_within_a_share(quota, variables, workers, monkeypatch, tmp_path):
    """Of a container, of Slurm, of torchrun within Slurm's task, of MPI; the log's advice counts as
    the recipes do, without their bound."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(16)))
    for name in ('LOCAL_WORLD_SIZE', 'SLURM_CPUS_PER_TASK', 'OMPI_COMM_WORLD_LOCAL_SIZE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / 'cpu.max').write_text(f'{quota}\n')
    text = (ROOT / 'configs/_base_/datasets/workers.py').read_text()
    (tmp_path / 'workers.py').write_text(text.replace('/sys/fs/cgroup/cpu.max', str(tmp_path / 'cpu.max')))
    assert Config.fromfile(tmp_path / 'workers.py').to_dict() == dict(workers=workers)
    monkeypatch.setattr(threads, 'QUOTA', str(tmp_path / 'cpu.max'))
    assert min(8, threads.process_cores()) == workers


def test_workers_where_no_affinity_is_known(monkeypatch):
    monkeypatch.delattr('os.sched_getaffinity', raising=False)
    monkeypatch.setattr('os.cpu_count', lambda: 3)
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    assert Config.fromfile(ROOT / 'configs/spt/vit-b_mae_cub.py').test_dataloader.num_workers == 3


def test_another_size_and_vit_in_the_lines_of_the_docs(tmp_path):
    """The ten lines give 8 x 8 patches of 14 pixels to a ViT-S with 100 classes, and change nothing but the sizes."""
    lines = (ROOT / 'docs/data.md').read_text().split('## Another size of image, another ViT')[1].split('```')[1]
    lines = lines.removeprefix('python\n').replace("'mmspt::", f"'{ROOT}/configs/")
    (tmp_path / 'config.py').write_text(lines)
    cfg = Config.fromfile(tmp_path / 'config.py')
    Image.fromarray(np.zeros((227, 250, 3), np.uint8)).save(tmp_path / 'image.png')
    for loader, base in ((cfg[name], load('configs/spt/vit-b_mae_cub.py')[name])
                         for name in ('train_dataloader', 'test_dataloader')):
        item = dict(img_path=str(tmp_path / 'image.png'))
        for step in loader.dataset.pipeline:
            item = TRANSFORMS.build(step)(item)
        assert item['inputs'].shape == (3, 112, 112)
        sizes = dict(scale=0, crop_size=0)
        assert [{**step, **sizes} for step in loader.dataset.pipeline] == [
            {**step, **sizes} for step in base.dataset.pipeline]
        assert loader.dataset.data_root == 'data/cub100'
    model = MODELS.build(cfg.model).eval()
    assert model.backbone.pos_embed.shape == (1, 1 + 8 * 8, 384)
    assert model(torch.zeros(1, 3, 112, 112))[0].shape == (100, )


@pytest.mark.parametrize(('task', 'classes', 'backbone'), [
    ('cifar10_1k', 10, 'mae'), ('flowers17_area_64', 17, 'mocov3')])
def test_study(task, classes, backbone, monkeypatch):
    """Every method: the same images, normalized as in pre-training, of one size, for as many steps; 6 settings each."""
    monkeypatch.setenv('MMSPT_TASK', task)
    monkeypatch.setenv('MMSPT_BACKBONE', backbone)
    cfgs = {method: Config.fromfile(ROOT / path) for method, path in STUDY.items()}
    pretraining = Config.fromfile(ROOT / f'configs/pretrain/vit-8x128_{backbone}_cifar10.py')
    for method, cfg in cfgs.items():
        for field in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'param_scheduler', 'train_cfg',
                      'data_preprocessor'):
            assert cfg[field] == cfgs['spt'][field], (method, field)
        assert cfg.pretraining == PRETRAINING[backbone]
        assert cfg.model.head.num_classes == classes
        assert cfg.model.backbone.num_prompts == (0 if method in ('linear', 'finetune') else 20)
        assert cfg.model.backbone.prompt_type == ('shallow' if method == 'gatevpt' or 'shallow' in method else 'deep')
        values = cfg.search_space[0].partition('=')[2].split(',')
        assert len(cfg.search_space) == 1 and len(values) == 6
    assert {field: cfgs['spt'].data_preprocessor[field] for field in ('mean', 'std', 'to_rgb')} == {
        field: pretraining.model.data_preprocessor[field] for field in ('mean', 'std', 'to_rgb')}
    given, made = cfgs['spt'].model.backbone, pretraining.model.backbone
    assert all(given[field] == made[field] for field in ('arch', 'img_size', 'patch_size'))
    assert Path(given.init_cfg.checkpoint).resolve() == (
        ROOT / f'configs/pretrain/vit-8x128_{backbone}_cifar10.safetensors')
