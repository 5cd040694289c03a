"""`_base_ = 'mmspt::...'` trains, tests and resumes, and gives what the same files give when they are named by path."""
import subprocess
import sys
from pathlib import Path

import mmcv
import mmengine
import mmpretrain.datasets
import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from mmengine.runner import Runner

from helpers import ROOT, command, environment, tool
from mmspt import registry
from mmspt.engine.launch import set_loader_defaults
from mmspt.evaluation.description import flatten
from mmspt.evaluation.scalars import read_scalars

STOCK = Path(mmpretrain.__path__[0], '.mim', 'tools')  # MMPretrain's own tools
SHORT = """
train_dataloader = dict(batch_size=100)
param_scheduler = dict(warmup=0, end=2)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1),
                     result=dict(type='mmspt.ResultHook', after_train=False))
"""
CASES = dict(
    one="""
_base_ = 'mmspt::spt/vit-xs_mae_digits.py'
""",
    two="""
_base_ = ['mmpretrain::_base_/default_runtime.py', 'mmspt::_base_/models/vit-xs_mae_digits.py',
          'mmspt::_base_/datasets/digits.py', 'mmspt::_base_/schedules/spt_100e.py']
model = dict(head=dict(num_classes=10))
""",
    deletion="""
_base_ = 'mmspt::spt/vit-xs_mae_digits.py'
lr = {{_base_.optim_wrapper.optimizer.lr}}
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=lr, weight_decay=0.))
val_dataloader = dict(dataset={{_base_.test_dataloader.dataset}})
sampler = dict(_delete_=True, type='DefaultSampler', shuffle=False)
test_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline}}), sampler=sampler)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
""")
PURE = """
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs, Resize
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ImageClassifier, LinearClsHead
from torch.optim import AdamW

from mmspt.datasets import Digits
from mmspt.engine.hooks import CheckpointHook, PromptInitHook, PromptNMIHook, ResultHook
from mmspt.engine.optimizers import TrainableOnlyOptimWrapperConstructor
from mmspt.engine.schedulers import WarmupCosineLR
from mmspt.models import PromptedViT
from mmspt.prompts import RandomSampleInit

default_scope = 'mmpretrain'
model = dict(type=ImageClassifier, head=dict(type=LinearClsHead, num_classes=10, in_channels=128), backbone=dict(
    type=PromptedViT, arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512), img_size=16,
    patch_size=2, out_type='avg_featmap', final_norm=False,
    init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r})))
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
loader = dict(num_workers=0, persistent_workers=False, batch_size=100)
pipeline = [dict(type=Resize, scale=16, interpolation='bicubic'), dict(type=PackInputs)]
train_dataloader = dict(**loader, sampler=dict(type=DefaultSampler, shuffle=True),
                        dataset=dict(type=Digits, split='train', images_per_class=20, pipeline=pipeline))
test_dataloader = dict(**loader, sampler=dict(type=DefaultSampler, shuffle=False),
                       dataset=dict(type=Digits, split='test', pipeline=pipeline))
test_evaluator = dict(type=Accuracy, topk=(1, ))
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, constructor=TrainableOnlyOptimWrapperConstructor,
                     optimizer=dict(type=AdamW, lr=5e-2), paramwise_cfg=dict(head_decay=0.5))
param_scheduler = dict(type=WarmupCosineLR, warmup=0, end=2, convert_to_iter_based=True)
custom_hooks = [dict(type=PromptInitHook, initializer=dict(type=RandomSampleInit))]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type=CheckpointHook, interval=1),
                     result=dict(type=ResultHook), nmi=dict(type=PromptNMIHook))
randomness = dict(seed=0)
"""
NAMES = dict(  # one name a kind that MMPretrain registers, or MMEngine where MMPretrain has none of that kind
    RUNNERS='Runner', RUNNER_CONSTRUCTORS=None, LOOPS='RetrievalTestLoop', HOOKS='VisualizationHook',
    LOG_PROCESSORS='LogProcessor', OPTIMIZERS='Lamb', OPTIM_WRAPPERS='OptimWrapper',
    OPTIM_WRAPPER_CONSTRUCTORS='LearningRateDecayOptimWrapperConstructor', PARAM_SCHEDULERS='CosineAnnealingLR',
    DATASETS='ImageNet', DATA_SAMPLERS='RepeatAugSampler', TRANSFORMS='PackInputs', MODELS='ImageClassifier',
    MODEL_WRAPPERS='MMDistributedDataParallel', WEIGHT_INITIALIZERS='TruncNormal', BATCH_AUGMENTS='Mixup',
    TASK_UTILS=None, TOKENIZER=None, METRICS='Accuracy', EVALUATORS='Evaluator',
    VISUALIZERS='UniversalVisualizer', VISBACKENDS='LocalVisBackend')


def losses(work_dir):
    """Losses of all iterations, however often the run was resumed."""
    return list(read_scalars(str(work_dir), 'loss').values())


def write(folder, text):
    folder.mkdir()
    (folder / 'mine.py').write_text(text + SHORT)
    return folder


def test_a_child_of_each_of_mmpretrains_registries():
    kinds = {name: value for name, value in vars(mmpretrain.registry).items()
             if isinstance(value, Registry) and value.scope == 'mmpretrain'}
    assert set(kinds) == set(NAMES)
    for name, parent in kinds.items():
        ours = getattr(registry, name)
        assert ours.parent is parent and ours.scope == 'mmspt' and ours.build_func is parent.build_func, name


def test_our_scope_finds_mmpretrains_classes(tmp_path):
    """In a process that imported nothing else: a parent's modules are not imported by MMEngine."""
    code = 'from mmspt import registry\nimport mmengine.runner, mmengine.evaluator, mmengine.visualization\n' \
        f'names = {NAMES}\n' \
        'print([kind for kind, name in names.items() if name and getattr(registry, kind).get(name) is None])'
    done = subprocess.run([sys.executable, '-c', code], env=environment(), cwd=tmp_path, capture_output=True, text=True,
                          check=True)
    assert done.stdout.splitlines()[-1] == '[]', done.stderr


def test_our_classes_are_found_by_the_prefix_from_another_scope(tmp_path):
    """In a process that has not imported mmspt; the other scope is of a plug-in that knows MMEngine alone."""
    code = """
import sys, types
from mmengine.registry import HOOKS, MODELS, DefaultScope, Registry
another = types.ModuleType('another'), types.ModuleType('another.registry')
sys.modules.update({module.__name__: module for module in another})
Registry('model', parent=MODELS, scope='another', locations=['another'])
DefaultScope.get_instance('test', scope_name='another')
print(type(MODELS.build(dict(type='mmspt.PromptedViT', arch='deit-tiny', allow_random_backbone=True))).__name__)
"""
    done = subprocess.run([sys.executable, '-c', code], env=environment(), cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.stdout.splitlines()[-1:] == ['PromptedViT'], done.stderr


def test_names_that_others_have_too_are_had_by_prefix():
    """Without one they are ours below `mmspt::`; docs/packs.md lists them."""
    kinds = {kind: getattr(registry, kind) for kind in NAMES}
    for kind in kinds.values():
        kind.import_from_location()
    shared = {(name, ours) for name, kind in kinds.items() for ours in kind.module_dict if kind.parent.get(ours)}
    assert shared == {
        ('OPTIM_WRAPPERS', 'AmpOptimWrapper'),
        ('DATASETS', 'CUB'), ('DATASETS', 'CustomDataset'), ('DATASETS', 'Flowers102'),
        ('DATASETS', 'StanfordCars'),
        ('TRANSFORMS', 'LoadImageFromFile'), ('TRANSFORMS', 'PackInputs'), ('TRANSFORMS', 'RandomResizedCrop'),
        ('TRANSFORMS', 'Resize'), ('TRANSFORMS', 'ResizeEdge'),
        ('HOOKS', 'CheckpointHook'), ('MODELS', 'ImageClassifier')}
    assert registry.DATASETS.get('mmpretrain.CUB') is mmpretrain.datasets.CUB
    assert registry.HOOKS.get('mmengine.CheckpointHook') is CheckpointHook
    assert registry.TRANSFORMS.get('mmcv.LoadImageFromFile') is mmcv.LoadImageFromFile


def test_an_inherited_collate_function_is_not_given_the_scope():
    """MMEngine hands what a `collate_fn` has beside its type to the function, and marks inherited dicts."""
    collate = dict(type='default_collate', _scope_='mmspt')
    cfg = Config(dict(train_dataloader=dict(batch_size=2, dataset=list(range(4)), collate_fn=collate,
                                            sampler=dict(type='DefaultSampler', shuffle=False))))
    with pytest.raises(TypeError, match='_scope_'):
        next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    set_loader_defaults(cfg, False, False)
    assert [batch.tolist() for batch in Runner.build_dataloader(cfg.train_dataloader)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize('case', CASES)
def test_same_config_as_by_path(case, tmp_path):
    """But for the marks of the scope that MMEngine makes."""
    found = []
    for prefix in ('mmspt::', f'{ROOT}/configs/'):
        (tmp_path / 'mine.py').write_text(CASES[case].replace('mmspt::', prefix) + SHORT)
        found.append(flatten(Config.fromfile(tmp_path / 'mine.py').to_dict()))
    for kind, values in zip(('package', 'path'), found, strict=True):
        checkpoint = values.pop('model.backbone.init_cfg.checkpoint')
        assert Path(checkpoint).resolve() == ROOT / 'configs/pretrain/vit-xs_mae_digits.safetensors', kind
    assert found[0] == found[1] and len(found[0]) > 80


def test_trains_tests_and_resumes_as_by_path(tmp_path):
    """From a folder outside the repository; the losses of both epochs and the test are those of relative bases."""
    found = {}
    for name, prefix in (('package', 'mmspt::'), ('path', f'{ROOT}/configs/')):
        folder = write(tmp_path / name, CASES['deletion'].replace('mmspt::', prefix))
        for more in ([], ['--resume', '--cfg-options', 'train_cfg.max_epochs=2']):
            tool('train.py', 'mine.py', '--work-dir', 'run', '--no-validate', *more, cwd=folder)
        tool('test.py', 'mine.py', 'run/epoch_2.pth', '--work-dir', 'test', '--out', 'test.json', '--out-item',
             'metrics', cwd=folder)
        found[name] = losses(folder / 'run'), mmengine.load(folder / 'test.json')
    assert found['package'] == found['path']
    assert len(found['path'][0]) == 4 and found['path'][1]['accuracy/top1'] > 15


@pytest.mark.slow
def test_mmpretrains_own_tools(tmp_path):
    """They import mmspt by our prefix, but parse the config first: a first base does it, as docs/packs.md says.

    The first command is a process that has not imported mmspt.
    """
    (tmp_path / 'mmspt_first.py').write_text("__import__('mmspt')\n")
    folder = write(tmp_path / 'mine', CASES['one'].replace(
        "'mmspt::spt/vit-xs_mae_digits.py'", "['../mmspt_first.py', 'mmspt::spt/vit-xs_mae_digits.py']"))
    train = STOCK / 'train.py', 'mine.py', '--work-dir', 'run', '--no-validate'
    command(sys.executable, *train, cwd=folder)
    tool(*train, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', cwd=folder)
    output = tool(STOCK / 'test.py', 'mine.py', 'run/epoch_2.pth', '--work-dir', 'test', cwd=folder)
    assert 'Epoch(test) [5/5]' in output and len(losses(folder / 'run')) == 4
    output = tool(STOCK / 'visualization' / 'vis_scheduler.py', 'mine.py', '--not-show', '--dataset-size', '400',
                  '--save-path', 'rate.png', cwd=folder)  # it trains a convolution in the model's place
    assert 'head_decay does nothing: SimpleModel has' in output and (folder / 'rate.png').is_file()


@pytest.mark.slow
def test_a_pure_python_config(tmp_path):
    """Classes in place of names: trained and resumed by our tool, and trained by MMPretrain's, with the same losses."""
    checkpoint = str(ROOT / 'configs/pretrain/vit-xs_mae_digits.safetensors')
    (tmp_path / 'pure.py').write_text(PURE.replace('{checkpoint!r}', repr(checkpoint)))
    for name, path in (('ours', 'train.py'), ('stock', STOCK / 'train.py')):
        tool(path, 'pure.py', '--work-dir', name, cwd=tmp_path)
    assert losses(tmp_path / 'ours') == losses(tmp_path / 'stock') and len(losses(tmp_path / 'ours')) == 2
    assert (tmp_path / 'stock/result.json').read_text() == (tmp_path / 'ours/result.json').read_text()
    tool('train.py', 'pure.py', '--work-dir', 'ours', '--resume', '--cfg-options', 'train_cfg.max_epochs=2',
         cwd=tmp_path)
    assert len(losses(tmp_path / 'ours')) == 4
