"""What a config changes of the run that a checkpoint resumes: obeyed from there on, or refused."""
import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmspt.evaluation.description import WEIGHTS

from ..model import unwrap

TYPE = 'optim_wrapper.optimizer.type'
VERSIONS = ('foreach', 'maximize', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay')
"""Options of torch's optimizers that not all versions have, and that change no result by themselves."""
STATE = ('last_step', '_global_step', '_last_value', 'base_values', 'verbose')
"""What a scheduler's state holds beside its settings."""


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list]:
    """Return dotted key -> [value before, value now] of what differs between two recipes, files of weights aside: these
    may lie elsewhere, and the loader compares what is in them."""
    return {key: [before.get(key), now.get(key)] for key in sorted(before.keys() | now.keys())
            if key.rpartition('.')[2] not in WEIGHTS and before.get(key) != now.get(key)}


def progress(runner: Runner, meta: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the unit that a run counts in, how many of them a checkpoint has done, and how many the run has."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return 'epoch', meta['epoch'], runner.max_epochs
    return 'iteration', meta['iter'], runner.max_iters


def refuse(runner: Runner, checkpoint: dict, changes: Mapping[str, list]) -> None:
    """Refuse what the checkpoint's state does not fit, or what is done already.

    Raises:
        ValueError: Another optimizer, other trained parameters, another start of the prompts, or no epoch left.
    """
    optimizer, found = checkpoint.get('optimizer'), []
    unit, done, end = progress(runner, checkpoint['meta'])
    if done > end or (done == end and changes.keys() - {'global_batch'}):
        found.append(f'the checkpoint is at {unit} {done} and the run ends at {unit} {end}: nothing is left to train')
    if TYPE in changes and len({str(kind).rpartition('.')[2].strip("'>") for kind in changes[TYPE]}) > 1:
        found.append(f'the state is of another optimizer ({TYPE} {changes[TYPE][0]} -> {changes[TYPE][1]})')
    starts = [{key.partition('.initializer.')[2]: pair[side] for key, pair in changes.items()
               if '.initializer.' in key and pair[side] is not None} for side in (0, 1)]  # wherever the hook stands
    if starts[0] != starts[1]:
        found.append(f'the prompts have started (initializer {starts[0]} -> {starts[1]})')
    state, parameters = checkpoint.get('state_dict') or {}, unwrap(runner.model).named_parameters()
    for name, parameter in parameters:
        saved = state.get(name, state.get(f'module.{name}', parameter))
        if parameter.requires_grad and saved.shape != parameter.shape:
            found.append(f'{name} is {tuple(saved.shape)} in the checkpoint, {tuple(parameter.shape)} in the model')
    if optimizer and not isinstance(runner.optim_wrapper, OptimWrapperDict) and not found:
        saved, live = optimizer['param_groups'], runner.optim_wrapper.optimizer.param_groups
        if [len(group['params']) for group in saved] != [len(group['params']) for group in live]:
            found.append(f'other parameters are trained, or in other groups ({len(saved)} -> {len(live)} groups)')
        missing = sorted(runner.optim_wrapper.optimizer.defaults.keys() - saved[0].keys() - set(VERSIONS))
        if missing:
            found.append(f'the state is of another optimizer, without {", ".join(missing)}')
    if found:
        named = f' (changed: {describe(changes)})' if changes else ''
        raise ValueError(f"--resume must go on with the run of '{runner._load_from}', but {'; '.join(found)}{named}: "
                         'take this back, or train anew, without --resume and with another --work-dir')


def follow(runner: Runner, checkpoint: dict, shifted: bool, changed: bool) -> dict[str, list]:
    """Give the checkpoint's optimizer the settings of the config, and its schedules the rates at its position.

    MMEngine loads the saved rates, decays and schedules over those of the config. Where they differ, the new schedules
    are stepped to the position instead. A run with the same settings is left alone.

    Args:
        shifted (bool): Whether the epochs have another length.
        changed (bool): Whether the config's schedules are known to differ.

    Returns:
        dict[str, list]: Option of the optimizer -> [value before, value now].

    Raises:
        ValueError: Another rate or schedule where a schedule depends on the metrics so far.
    """
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    if isinstance(wrapper, OptimWrapperDict) or not isinstance(schedulers, list):
        return {}
    optimizer, states = checkpoint.get('optimizer') or {}, checkpoint.get('param_schedulers')
    saved = [*optimizer.get('param_groups', ()), *filter(None, [optimizer.get('base_param_settings')])]
    changes = {}
    for before, now in zip(saved, wrapper.param_groups, strict=False):
        fixed = (key for key in before if key in now and key != 'params' and f'initial_{key}' not in before)
        changes.update({key: [before[key], now[key]] for key in fixed if before[key] != now[key]})
    if not optimizer:
        runner.logger.warning(f"'{runner._load_from}' has no state of the optimizer, which begins anew")
    settings = [[{key: value for key, value in state.items() if key not in STATE and not callable(value)}
                 for state in some if 'num_bad_epochs' not in state]  # of a plateau schedule, which its metrics set
                for some in (states or [], (one.state_dict() for one in schedulers))]
    if any(isinstance(one, ReduceOnPlateauParamScheduler) for one in schedulers):
        for state, one in zip(states or [], schedulers, strict=False):
            state.update(dict(end=one.end) if 'num_bad_epochs' in state else {})  # goes on through a longer run
        others = settings[0] != settings[1] and not shifted
        if changed or others or any(key.startswith('initial_') for key in changes):
            raise ValueError('--resume cannot change rate or schedule where the schedule depends on the metrics so '
                             'far: take this back, or train anew, without --resume and with another --work-dir')
    elif shifted or changed or changes or not optimizer or settings[0] != settings[1]:
        length = len(runner.train_dataloader) if isinstance(runner.train_loop, EpochBasedTrainLoop) else None
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # MMEngine misses the optimizer's steps
            for step in range(1, checkpoint['meta']['iter'] + 1):
                for one in schedulers:
                    if not one.by_epoch or (length and step % length == 0):
                        one.step()
        checkpoint.pop('param_schedulers', None)
        for before, now in zip(saved, wrapper.param_groups, strict=False):
            before.update({key: value for key, value in now.items() if key != 'params'})
        return changes
    for before, now in zip(saved, wrapper.param_groups, strict=False):
        before.update({key: now[key] for key in changes if key in before})
    return changes


def describe(changes: Mapping[str, list]) -> str:
    """Return 'key old -> new, ...'."""
    return ', '.join(f'{key} {old} -> {new}' for key, (old, new) in changes.items())
