"""results.json, results.md and the pictures."""
import json
import math
from dataclasses import replace

import optuna
import pytest
from fakes import make_cell
from matplotlib import image
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mmspt.search.plots import plot
from mmspt.search.queue import COMPLETE, FAIL, PRUNED
from mmspt.search.space import parse_space
from mmspt.search.summary import summarize, to_markdown, write

SPACE = parse_space(['lr=1e-3:1:log', 'model.text=a|b,/a/very/long/path/to/one.pth'])
METRIC = 'accuracy/top1'
CELL = replace(make_cell(), space=SPACE)


def make_study(trials, space=SPACE):
    """From (lr, text, validations, state)."""
    distributions = {SPACE[0].key: FloatDistribution(1e-3, 1, log=True),
                     SPACE[1].key: CategoricalDistribution(SPACE[1].choices)}
    study = optuna.create_study(direction='maximize')
    for lr, text, values, state in trials:
        trial = optuna.trial.create_trial(
            state=state, value=values[-1] if state == COMPLETE else None,
            params={p.key: value for p, value in zip(space, (lr, text), strict=False) if lr},
            distributions={p.key: distributions[p.key] for p in space if lr},
            intermediate_values=dict(enumerate(values, 1)), user_attrs=dict(slot=len(study.trials)))
        study.add_trial(trial)
    return study


TEXTS = SPACE[1].choices
STUDY = [(0.1, TEXTS[0], [40., 60.], COMPLETE), (None, None, [], FAIL), (0.5, TEXTS[1], [10.], PRUNED),
         (0.2, TEXTS[1], [50., 71.236], COMPLETE), (0.3, TEXTS[0], [math.nan], PRUNED)]


def test_summary(tmp_path):
    finals = {seed: {METRIC: value, 'other': 1} for seed, value in enumerate((70., 72., 77.))}
    write(summarize(CELL, make_study(STUDY).trials, finals, 'final/0123'), str(tmp_path), 'job')
    summary = json.loads((tmp_path / 'results.json').read_text(), parse_constant=pytest.fail)
    assert summary['global_batch'] == 32
    assert summary['best'] == dict(number=3, settings={SPACE[0].key: 0.2, SPACE[1].key: TEXTS[1]}, validation=71.236)
    assert summary['test'] == dict(by_seed={'0': 70., '1': 72., '2': 77.}, mean=73., std=pytest.approx(13**0.5),
                                   work_dir='final/0123')
    assert [(t['number'], t['state'], t['value'], t['validations']) for t in summary['trials']] == [
        (0, 'complete', 60., {'1': 40., '2': 60.}), (2, 'pruned', None, {'1': 10.}),
        (3, 'complete', 71.236, {'1': 50., '2': 71.236}), (4, 'pruned', None, {'1': None})]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['results.json', 'results.md']

    page = (tmp_path / 'results.md').read_text()
    assert '\nGlobal batch: 32.\n' in page
    assert '| 0 | 70.00 |\n| 1 | 72.00 |\n| 2 | 77.00 |\n| mean ± standard deviation | **73.00 ± 3.61** |' in page
    assert f'Best of 4 trials on the validation split: lr 0.2, model.text {TEXTS[1]} (accuracy/top1 71.24).' in page
    lines = page[page.index('| trial |'):].splitlines()[2:]
    rows = [line.replace(r'\|', '').split(' | ') for line in lines]
    assert [(row[0].strip('| '), *row[2:]) for row in rows] == [
        ('3', 'complete', '71.24', '2 |'), ('0', 'complete', '60.00', '2 |'), ('2', 'pruned', '10.00', '1 |'),
        ('4', 'pruned', '', '1 |')]


def test_one_seed_has_no_spread_and_none_no_test():
    study = make_study(STUDY)
    assert '**70.00** |' in to_markdown(summarize(CELL, study.trials, {0: {METRIC: 70.}}), 'job')
    summary = summarize(CELL, study.trials, {})
    assert summary['test'] == dict(by_seed={}, mean=None, std=None, work_dir=None)
    assert 'test' not in to_markdown(summary, 'job')


def test_nothing_finished_yet(tmp_path):
    study = make_study(STUDY[1:3])
    assert summarize(CELL, study.trials, {})['best'] is None
    assert plot(study, METRIC, str(tmp_path)) == []


@pytest.mark.parametrize(('space', 'trials', 'expected'), [
    (SPACE, STUDY, ['history', 'validations', 'slices', 'parallel_coordinates', 'importances']),
    (SPACE[:1], STUDY[:1], ['history', 'validations', 'slices'])])
def test_pictures(tmp_path, space, trials, expected):
    """Whatever there is to draw; none is empty."""
    paths = plot(make_study(trials, space), METRIC, str(tmp_path / 'plots'))
    assert paths == [str(tmp_path / 'plots' / f'{name}.png') for name in expected]
    assert sorted(path.name for path in (tmp_path / 'plots').iterdir()) == sorted(f'{name}.png' for name in expected)
    assert all(image.imread(path)[..., :3].std() > 0.02 for path in paths)
