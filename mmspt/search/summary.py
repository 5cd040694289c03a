"""What a search found, as Markdown and JSON."""
import json
import math
import os
import statistics
from typing import Any

import optuna

from mmspt.files import write_text

from .space import Parameter, describe
from .study import COMPLETE, PRUNED, best


def summarize(study: optuna.Study, space: list[Parameter], metric: str,
              finals: dict[int, dict[str, Any]], folder: str | None = None,
              global_batch: int | None = None) -> dict[str, Any]:
    """Gather trials, the best setting and its tests.

    Args:
        study (optuna.Study): The search.
        space (list[Parameter]): What it varied.
        metric (str): Quantity that was validated and is tested.
        finals (dict[int, dict]): Seed -> test metrics; empty before the last runs.
        folder (str | None): Folder of the last runs, relative to the search's. Defaults to None.
        global_batch (int | None): Images for each optimizer step; None if the runs differ. Defaults to None.

    Raises:
        ValueError: The test has no such quantity.
    """
    chosen = best(study)
    lacking = next((metrics for metrics in finals.values() if metric not in metrics), None)
    if lacking is not None:
        raise ValueError(f"what is validated must be tested as well, but the test has no '{metric}', only "
                         f"{', '.join(lacking)}: let test_evaluator be what val_evaluator is")
    tests = {seed: metrics[metric] for seed, metrics in finals.items()}
    mean = statistics.fmean(tests.values()) if tests else None
    deviation = statistics.stdev(tests.values()) if len(tests) > 1 else None
    trials = [dict(number=t.number, state=t.state.name.lower(), settings={p.key: t.params[p.key] for p in space},
                   value=t.value if t.state == COMPLETE else None,
                   validations={step: value if math.isfinite(value) else None  # JSON has no NaN
                                for step, value in t.intermediate_values.items()},
                   work_dir=t.user_attrs.get('work_dir'),
                   seconds=None if t.duration is None else round(t.duration.total_seconds(), 1))
              for t in study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED))]
    return dict(metric=metric, global_batch=global_batch, best=None if chosen is None else dict(
        number=chosen.number, settings=chosen.params, validation=chosen.value),
        test=dict(by_seed=tests, mean=mean, std=deviation, work_dir=folder), trials=trials)


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


def write(summary: dict[str, Any], folder: str, title: str) -> None:
    """Write results.json and results.md, each atomically."""
    for name, text in (('results.json', json.dumps(summary, indent=2, allow_nan=False) + '\n'),
                       ('results.md', to_markdown(summary, title))):
        write_text(os.path.join(folder, name), text)
