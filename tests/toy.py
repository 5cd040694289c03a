"""A training that takes no time: one weight, two numbers an image, a metric that is given."""
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import ClsHead
from torch.utils.data import DataLoader, Dataset

PLAN = dict(by_epoch=True, max_epochs=2)


class Images(Dataset):
    """Items of two numbers, with the labels given."""

    def __init__(self, labels=(0, 1, 0)):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.full((2, ), float(index))

    def get_cat_ids(self, index):
        return [self.labels[index]]


class Toy(torch.nn.Module):
    """One weight, and the three steps that MMEngine calls."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.head = ClsHead()
        self.head.num_classes = 2

    def train_step(self, data, optim_wrapper):
        loss = (self.weight * data).sum()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

    def test_step(self, data):
        return [dict(weight=self.weight.detach().sum().item())] * len(data)


class Given(BaseMetric):
    """Returns the given value, and how many images it saw."""

    def __init__(self, value=50.):
        super().__init__()
        self.value = value

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'accuracy/top1': self.value, 'images': len(results)} if self.value != 'none' else {}


class StopAfterOne(Hook):
    """Early stopping."""

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = True


def toy_runner(work_dir, hooks=(), metric=None, labels=(0, 1, 0), test=True, plan=PLAN,
               optimizer=None, **kwargs):
    """A runner of two epochs with two batches each; it is tested if ``test``."""
    tested = dict(test_dataloader=DataLoader(Images(labels), batch_size=2), test_cfg=dict(),
                  test_evaluator=[metric or Given()]) if test else {}
    return Runner(
        Toy(), str(work_dir), train_dataloader=DataLoader(Images(), batch_size=2), **tested, train_cfg=plan,
        optim_wrapper=dict(optimizer=optimizer or dict(type='SGD', lr=.1)), custom_hooks=list(hooks),
        cfg=Config(dict(train_cfg=plan)), experiment_name=uuid4().hex, default_scope='mmpretrain', **kwargs)
