"""Networks of random weights, images in memory, and runners of no iteration, for the benchmarks."""
import argparse
import os.path as osp
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier, VisionTransformer
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from measure import ROOT

CLASSES = 200
OUTPUTS: dict[str, dict[str, Any]] = dict(
    mae=dict(out_type='avg_featmap', final_norm=False), mocov3=dict(out_type='cls_token'))
"""What feeds the head: the mean of all tokens, or CLS."""


def classifier_config(args: argparse.Namespace, outputs: str, num_classes: int = CLASSES, **backbone: Any) -> dict:
    """Return the config of a classifier of ``args.arch``, a PromptedViT unless ``backbone`` names another type."""
    return dict(
        type='ImageClassifier',
        backbone=dict(dict(type='mmspt.PromptedViT', arch=args.arch, img_size=args.img_size, **OUTPUTS[outputs]),
                      **backbone),
        head=dict(type='LinearClsHead', num_classes=num_classes,
                  in_channels=VisionTransformer.arch_zoo[args.arch]['embed_dims']))


def build_classifier(args: argparse.Namespace, outputs: str, **kwargs: Any) -> ImageClassifier:
    """Build a classifier on ``args.device``; the weights are random, and the same for each call."""
    torch.manual_seed(0)
    return MODELS.build(classifier_config(args, outputs, **kwargs)).to(args.device)


def random_images(count: int, size: int) -> list[dict[str, Any]]:
    """Return noise in memory, as it leaves a pipeline."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return [dict(inputs=image, data_samples=DataSample().set_gt_label(i % CLASSES)) for i, image in enumerate(images)]


def train_pipeline(size: int, **loading: Any) -> list[dict[str, Any]]:
    """Return the recipes' augmentation for images of ``size`` pixels; ``loading`` are arguments of its loader."""
    pipelines = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'datasets', 'pipelines_224.py'))
    first, *others = pipelines.train_pipeline
    return [dict(first, **loading), *(dict(step, scale=size) if 'scale' in step else step for step in others)]


def build_runner(model: dict, images: list | dict, batch_size: int, work_dir: str, loader: dict | None = None,
                 **kwargs: Any) -> Runner:
    """Build a runner of no iteration, with AdamW and without checkpoints unless ``kwargs`` say otherwise.

    ``images`` lie in memory, or are the config of a data set; ``loader`` has further settings of the data loader.
    """
    kwargs.setdefault('optim_wrapper', dict(optimizer=dict(type='AdamW', lr=1e-4)))
    kwargs.setdefault('train_cfg', dict(by_epoch=False, max_iters=0))
    return Runner(
        model, work_dir, experiment_name=osp.basename(work_dir),  # MMEngine's names are alike within a second
        train_dataloader=dict(batch_size=batch_size, dataset=images, sampler=dict(type='DefaultSampler'),
                              **loader or {}),
        default_hooks=dict(checkpoint=None), randomness=dict(seed=0),
        data_preprocessor=dict(num_classes=CLASSES, mean=[127.5] * 3, std=[127.5] * 3), log_level='ERROR',
        default_scope='mmpretrain', **kwargs)


def step(runner: Runner, batch: dict[str, list]) -> None:
    """Train on one batch, as MMEngine's loops do."""
    runner.model.train()
    runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
