"""Tiny runs of MMEngine's Runner: two digits of each class (20 images), 3 steps an epoch, a random ViT of 2 blocks."""
import os
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import VisionTransformer
from safetensors.torch import load_file

from helpers import rng_states
from mmspt.datasets import Digits
from mmspt.engine.start import init_cpu_distributed

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
VIT = dict(arch=ARCH, img_size=16, patch_size=4, out_type='avg_featmap', final_norm=False)
PLAIN = [dict(type='Resize', scale=16), dict(type='PackInputs')]
AUGMENTED = [dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)), dict(type='PackInputs')]
DATA = dict(type='mmspt.Digits', images_per_class=2, pipeline=PLAIN, serialize_data=False)
NUM_IMAGES, NUM_TOKENS, STEPS, SEED = 20, 16, 3, 3  # images of the set, patches of an image, steps of an epoch
STILL = dict(optimizer=dict(type='SGD', lr=0.))
STOCK = dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', **VIT),
             head=dict(type='LinearClsHead', num_classes=10, in_channels=32))


def build_runner(work_dir, hook=None, backbone=None, pipeline=PLAIN, nmi=None, num_classes=10, batch_size=8, epochs=1,
                 **changes):
    """A Runner; options of PromptInitHook (``hook``) and of PromptNMIHook (``nmi``), None leaves the hook out."""
    default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    if nmi is not None:
        default_hooks['nmi'] = dict(type='mmspt.PromptNMIHook') | nmi
    cfg = dict(
        default_scope='mmpretrain',
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True) | VIT | (backbone or {}),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=32)),
        data_preprocessor=dict(num_classes=num_classes, mean=[127.5] * 3, std=[127.5] * 3),
        train_dataloader=dict(batch_size=batch_size, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                              dataset=DATA | dict(pipeline=pipeline)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=default_hooks,
        custom_hooks=[] if hook is None else [dict(type='mmspt.PromptInitHook') | hook],
        randomness=dict(seed=SEED),
        work_dir=str(work_dir),
        experiment_name=f'digits_{uuid4().hex}')
    cfg = Config(cfg | changes)
    init_cpu_distributed(cfg)
    return Runner.from_cfg(cfg)


class Probe(Hook):
    """Notes prompts, modes and random states before training, steps taken, and prompts, modes and loss of each."""

    def __init__(self):
        self.losses, self.steps = [], []

    def look(self, runner):
        method = getattr(runner.model.backbone, 'prompts', None)
        prompts = None if method is None else method.tokens.detach().cpu().clone()
        return prompts, {name: module.training for name, module in runner.model.named_modules()}

    def before_train(self, runner):
        method = getattr(runner.model.backbone, 'prompts', None)
        self.parameter = None if method is None else method.tokens
        self.prompts, self.modes = self.look(runner)
        self.rng_states = rng_states()
        self.steps.append((self.prompts, self.modes))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(self.look(runner))
        self.losses.append(outputs['loss'].item())


def train(work_dir, *args, **kwargs):
    """Train for an epoch; return the Runner and probes that ran before and after PromptInitHook."""
    runner = build_runner(work_dir, *args, **kwargs)
    probes = Probe(), Probe()
    runner.register_hook(probes[0], 'ABOVE_NORMAL')
    runner.register_hook(probes[1], 'BELOW_NORMAL')
    runner.train()
    return runner, *probes


def written(work_dir):
    """The prompts that PromptInitHook wrote, (L, N_p, D)."""
    return load_file(Path(work_dir) / 'initial_prompts.safetensors')['prompts']


def log_text(work_dir):
    return ''.join(path.read_text() for path in sorted(Path(work_dir).glob('*/*.log')))


def images_of(indices=range(NUM_IMAGES)):
    """Normalized images of the training set without augmentation, (B, 3, 16, 16)."""
    dataset = Digits(split='train', **{key: value for key, value in DATA.items() if key != 'type'})
    return (torch.stack([dataset[i]['inputs'] for i in indices]).float() - 127.5) / 127.5


def stock_copy(runner, vit=VIT):
    """MMPretrain's network with the run's frozen weights, in eval mode."""
    stock = VisionTransformer(**vit)
    state = runner.model.backbone.state_dict()
    stock.load_state_dict({k: v.cpu() for k, v in state.items() if not k.startswith('prompts')})
    stock.eval()  # returns nothing
    return stock


class FailOnLastRank:
    """A transform that fails on one process."""

    def __call__(self, results):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:
            return results
        raise OSError('this image is on a broken disk')


def join_group(rank, folder):
    """Make this process one of two, on the CPU."""
    torch.set_num_threads(1)
    Config.pretty_text = property(lambda self: '')  # YAPF takes more time than a tiny run
    os.environ.update(CUDA_VISIBLE_DEVICES='', LOCAL_RANK=str(rank))
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', timedelta(seconds=60), 2, rank)


def failure_of(runner):
    """Train; return how it ended, as text."""
    try:
        runner.train()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return 'finished'
