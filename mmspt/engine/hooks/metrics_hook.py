"""Ask a run's evaluators before the first step which metrics they will give."""
import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import BaseLoop, Runner, ValLoop
from mmengine.utils import is_method_overridden
from mmpretrain.evaluation import Accuracy, AveragePrecision, ConfusionMatrix, MultiLabelMetric, SingleLabelMetric
from mmpretrain.models import ClsHead, ImageClassifier, MultiLabelClsHead

from mmspt.registry import HOOKS

from ..model import unwrap
from ..reliability.checkpoint_hook import find_best_metric, is_number

KNOWN = {False: (Accuracy, ConfusionMatrix, SingleLabelMetric), True: (AveragePrecision, MultiLabelMetric)}
"""Whether the head is of several labels -> metrics that two made-up predictions tell; others may write files."""
HOSTS = ('mmengine', 'mmpretrain', 'mmspt')


@HOOKS.register_module()
class MetricsHook(Hook):
    """Find before training, or a test, the errors that would end it at its first validation, or at its test.

    MMPretrain's metrics are computed on two made-up predictions. If these are all metrics of the validation, the names
    in ``save_best`` and in the ``monitor`` of schedules and of EarlyStoppingHook are compared with them.

    Raises:
        ValueError: A ``topk`` beyond the number of classes, two metrics of one name, or a name that no metric has.
    """
    priority = 'NORMAL'  # after ResultHook, which builds the test loop, and before PromptInitHook of custom_hooks

    def before_test(self, runner: Runner) -> None:
        """Try the metrics of a test."""
        try_metrics(runner.test_loop.evaluator, unwrap(runner.model), 'test_evaluator')

    def before_train(self, runner: Runner) -> None:
        """Try the metrics of validation and test, and look for those that something waits for."""
        if isinstance(runner._test_loop, BaseLoop):
            self.before_test(runner)
        waiting = dict(find_waiting(runner))
        if runner.val_loop is None:
            for option, name in waiting.items():
                runner.logger.warning(f"{option} waits for '{name}', but this run has no validation: it never acts")
            return
        metrics = try_metrics(runner.val_loop.evaluator, unwrap(runner.model), 'val_evaluator')
        if metrics is None or type(runner.val_loop) is not ValLoop or any(map(_adds_metrics, runner.hooks)):
            return
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.save_best:
                check_save_best(hook, metrics)
        numbers = [name for name, value in metrics.items() if is_number(value)]
        for option, name in waiting.items():
            if name not in numbers:
                raise ValueError(f"{option} must name a number that val_evaluator gives, {_listed(numbers)}, got "
                                 f"'{name}': name one of them, or add its metric to val_evaluator")


def try_metrics(evaluator: Evaluator, model: Any, field: str) -> dict[str, Any] | None:
    """Return the metrics that an evaluator gives for two made-up predictions; None if it has other metrics than KNOWN.

    Raises:
        ValueError: A ``topk`` beyond the number of classes, or two metrics of one name.
    """
    head = getattr(model, 'head', None)
    classes = getattr(head, 'num_classes', None)
    if type(evaluator) is not Evaluator or not isinstance(model, ImageClassifier) or not classes or not isinstance(
            head, (ClsHead, MultiLabelClsHead)):
        return None
    known = [metric for metric in evaluator.metrics if type(metric) in KNOWN[isinstance(head, MultiLabelClsHead)]]
    metrics: dict[str, Any] = {}
    for metric in known:
        topk = getattr(metric, 'topk', None) or 1
        if max(topk if isinstance(topk, tuple) else [topk]) > classes:
            raise ValueError(f'topk must not exceed the number of classes, {classes}, but {type(metric).__name__} of '
                             f'{field} has topk={topk}: leave out what exceeds it')
        for name, value in _compute(metric, classes).items():
            if name in metrics:
                raise ValueError(f"metrics must have different names, but {field} gives '{name}' twice: leave one out, "
                                 'or give it a prefix=...')
            metrics[name] = value
    return metrics if len(known) == len(evaluator.metrics) else None


def _compute(metric: Any, classes: int) -> dict[str, Any]:
    metric = copy.deepcopy(metric)
    metric.results = []
    scores = torch.zeros(2, classes)
    scores[0, 0] = scores[1, -1] = 1
    metric.process(None, [dict(pred_score=score, pred_label=score.argmax(0, keepdim=True), gt_score=score,
                               gt_label=score.argmax(0, keepdim=True)) for score in scores])
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {prefix + name: value for name, value in metric.compute_metrics(metric.results).items()}


def find_waiting(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield the options that name a metric of the validation, other than ``save_best``, and the name."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            yield 'EarlyStoppingHook.monitor', hook.monitor
    schedules = runner.param_schedulers or []
    for schedule in chain(*schedules.values()) if isinstance(schedules, dict) else schedules:
        if getattr(schedule, 'need_val_args', False):
            yield f'{type(schedule).__name__}.monitor', schedule.monitor


def check_save_best(hook: CheckpointHook, metrics: Mapping[str, Any]) -> None:
    """Raise ValueError if ``save_best`` names no number among the metrics, or 'auto' finds none."""
    for name in hook.key_indicators:
        if name == 'auto' and find_best_metric(hook, metrics) is None:
            raise ValueError("save_best='auto' must find a metric that is one number, with a known rule, but "
                             f"val_evaluator gives {_listed(metrics)}: put dict(type='Accuracy') first in "
                             'val_evaluator, or set default_hooks.checkpoint.save_best=None')
        if name != 'auto' and not is_number(metrics.get(name)):
            numbers = [known for known, value in metrics.items() if is_number(value)]
            raise ValueError(f'save_best must name a number that val_evaluator gives, {_listed(numbers)}, got '
                             f"'{name}': set default_hooks.checkpoint.save_best, or add its metric")


def _listed(names: Any) -> str:
    return ', '.join(names) or 'none'


def _adds_metrics(hook: Hook) -> bool:
    """Whether a hook of the user's may add metrics to a validation."""
    foreign = type(hook).__module__.partition('.')[0] not in HOSTS
    return foreign and is_method_overridden('after_val_epoch', Hook, hook)
