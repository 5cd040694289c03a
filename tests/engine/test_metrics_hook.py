"""Metrics that cannot be computed, and names that no metric has, are found before the first step."""
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from mmengine.hooks import EarlyStoppingHook
from mmengine.optim import ReduceOnPlateauLR
from mmengine.registry import init_default_scope
from mmengine.runner import ValLoop
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from digit_runs import DATA, PLAIN, build_runner
from mmspt.engine.hooks import CheckpointHook, MetricsHook
from mmspt.engine.hooks.metrics_hook import try_metrics

ACCURACY, MATRIX = dict(type='Accuracy', topk=(1, 3)), dict(type='ConfusionMatrix')
BY_CLASS = dict(type='SingleLabelMetric', average=None)


class Foreign(BaseMetric):
    """A user's own, which must not be tried."""

    def process(self, data_batch, data_samples):
        raise AssertionError

    compute_metrics = process


def model(head='LinearClsHead', classes=3):
    init_default_scope('mmpretrain')
    return ImageClassifier(dict(type='LeNet5'), head=dict(type=head, num_classes=classes, in_channels=84))


def before_train(*metrics, hooks=(), schedules=(), net=None, val=True):
    """Let the hook look at a run that validates with these metrics."""
    net = net or model()
    loop = object.__new__(ValLoop)
    loop.evaluator = Evaluator(list(metrics))
    runner = SimpleNamespace(model=net, hooks=list(hooks), param_schedulers=list(schedules), _test_loop=None,
                             val_loop=loop if val else None, logger=logging.getLogger('metrics'))
    MetricsHook().before_train(runner)


def plateau(monitor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.)
    return ReduceOnPlateauLR(optimizer, monitor=monitor, rule='greater')


@pytest.mark.parametrize('metrics', [[ACCURACY, MATRIX], [BY_CLASS, dict(type='SingleLabelMetric')],
                                     [dict(type='MultiLabelMetric'), dict(type='AveragePrecision', average=None)]])
def test_metrics_are_those_of_a_validation(metrics):
    several = 'MultiLabel' in metrics[0]['type']
    net, evaluator = model('MultiLabelLinearClsHead' if several else 'LinearClsHead'), Evaluator(metrics)
    found = try_metrics(evaluator, net, 'val_evaluator')
    samples = [DataSample().set_pred_score(torch.rand(3)).set_gt_label([i % 3] if several else i % 3)
               for i in range(9)]
    evaluator.process(samples)
    real = evaluator.evaluate(9)
    assert list(found) == list(real)
    assert [type(value) for value in found.values()] == [type(value) for value in real.values()]


@pytest.mark.parametrize(('metrics', 'options', 'message'), [
    ([MATRIX], dict(hooks=[CheckpointHook(save_best='auto')]),
     'gives confusion_matrix/result: put .*save_best=None'),
    ([BY_CLASS], dict(hooks=[CheckpointHook(save_best='auto')]), 'must find a metric that is one number'),
    ([MATRIX, ACCURACY], dict(hooks=[StockCheckpointHook(save_best='auto')]), "put dict.type='Accuracy'. first"),
    ([ACCURACY], dict(hooks=[CheckpointHook(save_best='accuracy/top5')]), 'accuracy/top1, accuracy/top3, got .*top5'),
    ([MATRIX], dict(hooks=[CheckpointHook(save_best='confusion_matrix/result', rule='greater')]), 'gives, none, got'),
    ([ACCURACY], dict(hooks=[EarlyStoppingHook('accuracy/top5')]), "EarlyStoppingHook.monitor .* got 'accuracy/top5'"),
    ([ACCURACY], dict(schedules=[plateau('loss')]), "ReduceOnPlateauLR.monitor .* gives, accuracy/top1, .*got 'loss'"),
    ([ACCURACY], dict(net=model(classes=2)), r'number of classes, 2, but Accuracy .* topk=\(1, 3\): leave out'),
    ([Foreign(), ACCURACY], dict(net=model(classes=2)), 'topk'),
    ([dict(type='MultiLabelMetric', topk=5)], dict(net=model('MultiLabelLinearClsHead')), 'MultiLabelMetric .* topk=5'),
    ([ACCURACY, dict(type='Accuracy')], {}, "val_evaluator gives 'accuracy/top1' twice"),
])
def test_errors_that_would_come_late(metrics, options, message):
    with pytest.raises(ValueError, match=message):
        before_train(*metrics, **options)


@pytest.mark.parametrize(('metrics', 'options'), [
    ([MATRIX, ACCURACY], dict(hooks=[CheckpointHook(save_best='auto'), EarlyStoppingHook('accuracy/top3')])),
    ([dict(type='SingleLabelMetric', items=('recall', ))], dict(hooks=[CheckpointHook(save_best='auto')])),
    ([ACCURACY], dict(schedules=[plateau('accuracy/top1')])),
    ([Foreign()], dict(hooks=[CheckpointHook(save_best='auto')], schedules=[plateau('mine')])),
])
def test_runs_in_order_and_metrics_of_others(metrics, options, caplog):
    before_train(*metrics, **options)
    assert 'monitor' not in caplog.text and 'save_best' not in caplog.text


def test_without_a_validation_what_waits_for_it_is_told(caplog):
    before_train(schedules=[plateau('accuracy/top1')], val=False)
    assert "ReduceOnPlateauLR.monitor waits for 'accuracy/top1', but this run has no validation" in caplog.text


def test_the_best_is_the_first_number(tmp_path):
    checkpoint = dict(type='mmspt.CheckpointHook', interval=1, save_best='auto')
    build_runner(tmp_path, val_cfg={}, val_evaluator=[MATRIX, BY_CLASS, ACCURACY], val_dataloader=dict(
        batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=DATA | dict(
            pipeline=PLAIN)), default_hooks=dict(checkpoint=checkpoint, metrics=dict(type='mmspt.MetricsHook'))).train()
    assert (tmp_path / 'best_accuracy_top1_epoch_1.pth').exists()
