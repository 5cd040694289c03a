"""What a search found, as Markdown and JSON."""
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from mmspt.files import write_text

from .cell import Cell, digest
from .queue import COMPLETE, PRUNED, best_of
from .space import describe


def summarize(cell: Cell, trials: Sequence[FrozenTrial], finals: Mapping[int, Mapping[str, Any]],
              folder: str | None = None, curves: Mapping[int, Mapping[int, float]] | None = None) -> dict[str, Any]:
    """Gather trials, the best setting and its tests.

    Args:
        cell (Cell): What was searched.
        trials (Sequence[FrozenTrial]): Of its search.
        finals (Mapping[int, Mapping]): Seed -> test metrics; empty before the last runs.
        folder (str | None): Folder of the last runs, relative to the search's. Defaults to None.
        curves (Mapping | None): Seed -> epoch -> validation of the best setting. Defaults to None.
    """
    chosen = best_of(trials)
    tests = {seed: metrics[cell.metric] for seed, metrics in finals.items()}
    mean = statistics.fmean(tests.values()) if tests else None
    deviation = statistics.stdev(tests.values()) if len(tests) > 1 else None
    ended = [dict(number=t.user_attrs['slot'], state=t.state.name.lower(),
                  settings={p.key: t.params[p.key] for p in cell.space},
                  value=t.value if t.state == COMPLETE else None, validations=finite(t.intermediate_values),
                  work_dir=digest(t.params, cell.identity), seconds=round(seconds_of(t), 1))
             for t in sorted(trials, key=lambda t: t.number) if t.state in (COMPLETE, PRUNED)]
    return dict(
        identity=cell.identity, final_identity=cell.final_identity, metric=cell.metric, global_batch=cell.global_batch,
        best=None if chosen is None else dict(number=chosen.user_attrs['slot'], settings=chosen.params,
                                              validation=chosen.value),
        test=dict(by_seed=tests, mean=mean, std=deviation, work_dir=folder),
        curves={seed: finite(values) for seed, values in (curves or {}).items()}, trials=ended)


def finite(values: Mapping[int, float]) -> dict[int, float | None]:
    """Return validations by step as JSON has them, which knows no NaN."""
    return {step: value if math.isfinite(value) else None for step, value in values.items()}


def seconds_of(trial: FrozenTrial) -> float:
    """Return what an ended attempt took, as its worker measured it; 0 if it was lost."""
    return float(trial.user_attrs.get('seconds', 0.))


def to_markdown(summary: dict[str, Any], title: str) -> str:
    """Return a summary as a page: the test, then every trial, the best first."""
    metric, test, chosen = summary['metric'], summary['test'], summary['best']
    lines = [f'# {title}', '']
    if chosen is not None:
        lines += [f'Best of {len(summary["trials"])} trials on the validation split: {describe(chosen["settings"])} '
                  f'({metric} {chosen["validation"]:.2f}).', '']
    if test['by_seed']:
        lines += ['Trained on train + val with this setting, the last epoch tested once a seed:', '',
                  f'| seed | test {metric} |', '| --- | ---: |']
        lines += [f'| {seed} | {value:.2f} |' for seed, value in test['by_seed'].items()]
        spread_text = f'{test["mean"]:.2f}' + (f' ± {test["std"]:.2f}' if test['std'] is not None else '')
        lines += [f'| mean ± standard deviation | **{spread_text}** |', '']
    if summary['global_batch']:
        lines += [f'Global batch: {summary["global_batch"]}.', '']
    lines += [f'| trial | settings | state | validation {metric} | epochs |', '| ---: | --- | --- | ---: | ---: |']
    for trial in sorted(summary['trials'], key=lambda t: -(-math.inf if t['value'] is None else t['value'])):
        values = trial['validations']
        last = values[max(values)] if values else None
        settings = describe(trial['settings']).replace('|', r'\|')
        lines.append(f'| {trial["number"]} | {settings} | {trial["state"]} | '
                     f'{"" if last is None else f"{last:.2f}"} | {max(values, default="")} |')
    return '\n'.join(lines) + '\n'


def write(summary: dict[str, Any], folder: str, title: str) -> bool:
    """Write results.json and results.md, each atomically; return whether anything is new."""
    content, path = json.dumps(summary, indent=2, allow_nan=False) + '\n', os.path.join(folder, 'results.json')
    if os.path.isfile(path) and Path(path).read_text(encoding='utf-8') == content:
        return False
    write_text(os.path.join(folder, 'results.md'), to_markdown(summary, title))
    write_text(path, content)
    return True
