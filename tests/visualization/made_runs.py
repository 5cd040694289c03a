"""Work directories with chosen logs, and what several tests read from runs and pictures."""
import csv
import io
import json

import torch

from mmspt.visualization import RunFolder
from mmspt.visualization.images import preprocess

CONFIG = """
model = dict(type='ImageClassifier', backbone=dict(type='mmspt.PromptedViT', num_prompts={num_prompts}))
custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.{initializer}'))]
optim_wrapper = dict(optimizer=dict(lr={lr}))
train_cfg = dict({train})
randomness = dict(seed={seed})
default_hooks = dict({hooks})
test_dataloader = dict(dataset=dict(type={task!r}))
"""


def make_run(folder, *parts, num_prompts=20, initializer='RandomSampleInit', lr=0.1, train='max_epochs=2', seed=0,
             hooks='', task='Digits'):
    """A run whose parts, one a start, logged these records."""
    folder.mkdir(parents=True)
    (folder / 'job.py').write_text(CONFIG.format(num_prompts=num_prompts, initializer=initializer, lr=lr, train=train,
                                                 seed=seed, hooks=hooks, task=task))
    for i, records in enumerate(parts or ([], )):
        path = folder / f'20260101_00000{i}' / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return RunFolder(str(folder))


def nmi(iteration, epoch, *layers):
    """A record as PromptNMIHook writes it."""
    named = {f'nmi/layer_{i:02d}': value for i, value in enumerate(layers, 1)}
    return {**named, 'nmi/mean': sum(layers) / len(layers), 'nmi/epoch': epoch, 'step': iteration}


def train(iteration, epoch, loss):
    """A record as LoggerHook writes it while training."""
    return dict(loss=loss, epoch=epoch, iter=iteration, step=iteration)


def val(epoch, accuracy):
    """A record as LoggerHook writes it after a validation."""
    return {'accuracy/top1': accuracy, 'step': epoch}


def read_csv(picture):
    """The rows of a picture's numbers."""
    return list(csv.DictReader(io.StringIO(picture.csv)))


def tokens_of(run, layer):
    """All training tokens E_{layer-1}, (images, N_e, D), fp64, one image at a time."""
    images = run.images('train')
    single = [preprocess([images[i]], run.model.data_preprocessor) for i in range(len(images))]
    return torch.cat([list(run.backbone.patch_tokens(image, layer))[layer - 1] for image in single]).double().numpy()
