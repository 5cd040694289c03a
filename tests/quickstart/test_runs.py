"""The runs of a quickstart, with runs that take no time in place of trainings."""
import json
import time

import pytest

from mmspt.evaluation import RESULT_FILE
from mmspt.quickstart.runs import Quickstart, Run, next_rate

EPOCHS = 3
FAKE = """
import json, os, sys, time
work_dir = sys.argv[sys.argv.index('--work-dir') + 1]
options = dict(option.split('=') for option in sys.argv if option.startswith(('optim', 'random', 'default')))
if 'train' in sys.argv[0]:
    rate, seed = float(options['optim_wrapper.optimizer.lr']), int(options['randomness.seed'])
    if os.environ.get('FAIL') == f'{rate:g}':
        sys.exit('no luck')
    if os.environ.get('DIVERGE') == f'{rate:g}':
        sys.exit('FloatingPointError: the loss must be finite, but it is nan')
    with open(os.environ['CALLS'], 'a') as file:
        file.write(f'{os.path.basename(work_dir)} {os.environ["WORKER"]}\\n')
    folder = os.path.join(work_dir, 'time', 'vis_data')
    os.makedirs(folder, exist_ok=True)
    best = dict(linear=3e-2, vpt=1e-3, spt=1e-2)[os.path.basename(sys.argv[1]).removesuffix('.py')]
    value = 90 - 10 * abs(max(rate, best) / min(rate, best) - 1) + seed
    with open(os.path.join(folder, 'scalars.json'), 'a') as file:
        for epoch in range(1, 4):
            file.write(json.dumps({'step': epoch, 'accuracy/top1': value - 3 + epoch}) + '\\n')
    open(os.path.join(work_dir, 'epoch_3.pth'), 'w').close()
    tested = options['default_hooks.result.after_train'] == 'True'
else:
    with open(os.environ['CALLS'], 'a') as file:
        file.write(f'test {os.path.basename(work_dir)}\\n')
    tested, value = True, 50.
if tested:
    with open(os.path.join(work_dir, 'result.json'), 'w') as file:
        json.dump(json.loads(os.environ['RESULT']) | dict(metrics={'accuracy/top1': value}), file)
"""
RESULT = dict(
    config=None, task='x', group='Other', split=None, num_images=1, trained_on=None, method='SPT-Deep',
    initializer=None, num_prompts=1, arch='x', pretraining='x', tta=False, recipe=None, seed=0, epoch=3, max_epochs=3,
    finished=True, checkpoint=None, versions={})


@pytest.mark.parametrize(('tried', 'expected'), [
    ({}, 1e-2), ({1e-2: 50.}, 3e-3), ({1e-2: 50., 3e-3: 60.}, 1e-3), ({1e-2: 50., 3e-3: 40.}, 3e-2),
    ({1e-2: 50., 3e-3: 40., 3e-2: 30.}, 1e-3), ({1.: 9., 3e-1: 8.}, 1e-1), ({0.05: 50.}, 1e-2)])
def test_next_rate(tried, expected):
    """Beside the best; if both sides of it are known, beside the second."""
    assert next_rate(tried, 1e-2) == expected


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Make a quickstart of fake tools; ``calls()`` returns what they were called for."""
    for name in ('train.py', 'test.py'):
        (tmp_path / name).write_text(FAKE)
    monkeypatch.setenv('CALLS', str(tmp_path / 'calls'))
    monkeypatch.setenv('RESULT', json.dumps(RESULT))

    def make(**kwargs):
        defaults = dict(
            configs={method: f'{method}.py' for method in ('linear', 'vpt', 'spt')},
            first_rates=dict(linear=1e-2, vpt=3e-3, spt=1e-2),
            costs=dict(linear=1., vpt=2., spt=2.), epochs=EPOCHS, rates=2, folder=str(tmp_path / 'runs'),
            tools=str(tmp_path), environments=[dict(WORKER='0'), dict(WORKER='1')], deadline=time.monotonic() + 1000)
        return Quickstart(**{**defaults, **kwargs})

    make.calls = lambda: (tmp_path / 'calls').read_text().splitlines() if (tmp_path / 'calls').is_file() else []
    make.folder = tmp_path / 'runs'
    return make


def train(quickstart):
    quickstart.train(lambda running: None)
    quickstart.test(lambda done, total: None)
    return quickstart


def test_search_then_one_test(job):
    quickstart = train(job())
    calls = job.calls()
    assert sorted(call.split()[0] for call in calls if not call.startswith('test')) == sorted([
        'linear_lr0.01_seed0', 'linear_lr0.003_seed0', 'vpt_lr0.003_seed0', 'vpt_lr0.001_seed0', 'spt_lr0.01_seed0',
        'spt_lr0.003_seed0'])
    assert {call.split()[1] for call in calls if not call.startswith('test')} == {'0', '1'}
    assert sorted(calls[-3:]) == ['test linear_lr0.01_seed0', 'test spt_lr0.01_seed0', 'test vpt_lr0.001_seed0']
    assert {method: quickstart.best(method).rate for method in quickstart.configs} == dict(
        linear=1e-2, vpt=1e-3, spt=1e-2)
    assert quickstart.best('spt').test == 50. and quickstart.best('spt').validations == {1: 88., 2: 89., 3: 90.}
    record = json.loads(json.dumps(quickstart.record()))
    assert record['vpt']['chosen'] == 1e-3 and record['vpt']['test'] == {'0': 50.}
    assert set(record['vpt']['rates']) == {'0.003', '0.001'}


def test_one_rate_is_tested_by_its_training(job):
    quickstart = train(job(rates=1))
    assert not any(call.startswith('test') for call in job.calls()) and quickstart.best('spt').test == 90.


def test_other_seeds_of_the_best(job):
    quickstart = train(job(rates=2, more_seeds=2))
    assert [(run.seed, run.test) for run in quickstart.finals('spt')] == [(0, 50.), (1, 91.), (2, 92.)]
    assert len(job.calls()) == 6 + 6 + 3


def test_a_rate_that_diverges_is_the_worst(job, monkeypatch):
    monkeypatch.setenv('DIVERGE', '0.01')
    quickstart = train(job())
    assert quickstart.best('spt').rate == 3e-3 and quickstart.best('spt').test == 50.
    assert quickstart.record()['spt']['diverged'] == ['0.01']
    calls = job.calls()
    train(job())
    assert job.calls() == calls


def test_all_rates_diverge(job, monkeypatch):
    monkeypatch.setenv('DIVERGE', '0.01')
    with pytest.raises(RuntimeError, match=r'every run of (linear|spt) left the finite numbers.*lower the rate in'):
        train(job(rates=1))


def test_the_rounds_of_an_earlier_call_are_no_reason_for_more(job):
    """They took no time now, and cost what they cost then."""
    train(job(rates=2, costs=dict(linear=10., vpt=20., spt=20.), deadline=time.monotonic() + 20))
    for path in job.folder.glob('*/seconds.json'):
        path.write_text('20')
    quickstart = train(job(rates=2, more_seeds=2, costs=dict(linear=10., vpt=20., spt=20.),
                           deadline=time.monotonic() + 20))
    assert quickstart.rates == 1 and len(quickstart.runs) == 3


@pytest.mark.parametrize(('deadline', 'rates'), [(-1., 1), (1e6, 3)])
def test_no_round_that_does_not_fit(deadline, rates, job):
    quickstart = train(job(rates=3, more_seeds=1, deadline=time.monotonic() + deadline))
    assert quickstart.rates == rates and all(len(quickstart.of(method)) == rates for method in quickstart.configs)
    assert all(run.seed == 0 for run in quickstart.runs) == (deadline < 0)


def test_finished_runs_are_not_done_again(job, monkeypatch):
    monkeypatch.setenv('FAIL', '0.003')
    with pytest.raises(RuntimeError, match=r'(?s)a run failed; see .*train\.txt, which ends with.*no luck'):
        train(job(environments=[dict(WORKER='0')]))
    before = job.calls()
    monkeypatch.delenv('FAIL')
    quickstart = train(job())
    after = [call.split()[0] for call in job.calls()[len(before):] if not call.startswith('test')]
    assert before and not {call.split()[0] for call in before} & set(after)
    assert len(quickstart.runs) == 6
    calls = job.calls()
    train(job())
    assert job.calls() == calls


def test_a_run_without_its_last_validation_goes_on(job):
    train(job(rates=1))
    run = Run('spt', 1e-2, 0, True, str(job.folder))
    assert run.is_trained(EPOCHS) and not run.is_trained(EPOCHS + 1)
    (job.folder / 'spt_lr0.01_seed0' / RESULT_FILE).unlink()
    assert not run.is_trained(EPOCHS)
