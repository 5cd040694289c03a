"""A plan from the command line: begun, joined, shown, edited; what is wrong is said before anything is trained."""
import csv
import json
import os
import re

import pytest

import forked
from helpers import environment, tool

PLAN = '''
title: Two methods
config: {config}
trials: 1
seeds: 1
search: ['lr=0.01,0.05']
options: [train_cfg.max_epochs=1, param_scheduler.end=1]
checkpoints: {{mae: {{title: MAE}}}}
tasks: {{flowers: }}
methods:
  SPT-Deep: {{}}
  Linear: {{options: [model.backbone.num_prompts=0]}}
'''


@pytest.fixture
def plan(job):
    path = job.root / 'two.yaml'
    path.write_text(PLAN.format(config=os.path.relpath(job.config, job.root)))
    return path


@pytest.mark.slow
def test_from_the_first_command_to_the_table(job, plan):
    """A worker in the background and the tool itself share the runs; the next call goes on; an edited plan keeps what
    it can."""
    folder = job.root / 'out'
    for arguments in (['worker', plan], [plan, '--once']):
        assert 'must have been begun' in tool('benchmark.py', *arguments, '--work-dir', folder, fails=True)
    assert not folder.exists()
    begun = forked.start('benchmark.py', [plan, '--work-dir', folder, '--workers', '0', '--beat', '1'],
                         job.root / 'watch.txt', environment=environment())
    while not (folder / 'table.md').exists():
        assert begun.is_alive(), (job.root / 'watch.txt').read_text()
    output = tool('benchmark.py', 'worker', plan, '--work-dir', folder, '--beat', '1')
    begun.join(60)
    assert begun.exitcode == 0, (job.root / 'watch.txt').read_text()
    assert 'Waits for workers' in (job.root / 'watch.txt').read_text()
    assert 'joins two with 1 runs' in output and 'Nothing is left' in output
    assert len(re.findall(r'(trial|test) 0 finished: \d+\.\d\d lr', output)) == 4

    output = tool('benchmark.py', plan, '--work-dir', folder)
    assert 'Going on: 2 of 2 cells are as they were' in output and '2 of 2 cells are done' in output
    assert 'Every cell: 1 trials (seed 0), pruned after 5, 1 seeds (0 to 0).' in output
    rows = list(csv.DictReader((folder / 'table.csv').read_text().splitlines()))
    results = {row['method']: float(row['mean']) for row in rows}
    for method in ('SPT-Deep', 'Linear'):
        cell = folder / 'mae' / 'flowers' / method.lower()
        tested = json.loads(next(cell.glob('final/*/seed_0/result.json')).read_text())
        assert results[method] == pytest.approx(tested['metrics']['accuracy/top1'], abs=1e-4)
        assert json.loads((cell / 'results.json').read_text())['test']['by_seed'] == {
            '0': tested['metrics']['accuracy/top1']}
        assert (cell / 'plots' / 'history.png').is_file() and not list(cell.glob('trials/*/*.pth'))
    page = (folder / 'table.html').read_text()
    assert '<h1>Two methods</h1>' in page and 'http-equiv="refresh"' not in page
    assert 'Linear | ' in (folder / 'table.md').read_text()
    report = tool('report.py', folder)
    assert 'SPT-Deep' in report and 'skipped' not in report

    plan.write_text(plan.read_text().replace('  SPT-Deep: {}\n', ''))
    output = tool('benchmark.py', plan, '--work-dir', folder, '--once')
    assert '2 of 2 cells' in output  # shown as it was begun; the edited plan begins with the next call


@pytest.mark.parametrize(('change', 'arguments', 'message'), [
    (('methods:', 'metods:'), [], "has 'metods': write methods"),
    (('max_epochs=1', 'max_epoch=1'), ['--storage', 'nosql://x'], "'nosql://x' is not"),
    (('', ''), ['--workers', '-1'], '--workers must be at least 0'),
    (('', ''), ['--beat', '0'], '--beat must be above 0'),
    (("['lr=0.01,0.05']", "['val_dataloader.dataset.ann_file=a,b']"), [],
     "'mae/flowers/spt-deep' of two has not: a search must"),
])
def test_what_is_wrong_is_said_first(job, plan, change, arguments, message):
    plan.write_text(plan.read_text().replace(*change) if change[0] else plan.read_text())
    output = tool('benchmark.py', plan, '--work-dir', job.root / 'out', *arguments, fails=True)
    assert message in output.replace('\n', ' ')
    assert not list((job.root / 'out').glob('mae'))
