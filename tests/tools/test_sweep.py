"""The search for real: short trials and last runs, killed and taken up by the same command."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

import forked
from helpers import ROOT, environment, load_tool, tool
from mmspt.search.study import identify

SHORT = ['--cfg-options', 'train_cfg.max_epochs=2', 'param_scheduler.end=2']
SMALL = ['--search', 'lr=0.001,0.05', '--trials', '2', '--seeds', '1', '--workers', '1', *SHORT]
ARGUMENTS = ['--search', 'lr=0.001,0.05', 'model.backbone.num_prompts=5,3', '--workers', '2', '--prune-after', '100',
             '--trials', '4', '--seeds', '2', *SHORT]


def processes(folder):
    """Command lines that name a folder, without this one's."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', encoding='utf-8', errors='replace') as file:
                line = file.read()
        except OSError:
            continue
        if str(folder) in line and int(pid) != os.getpid():
            found.append(line.replace('\0', ' '))
    return found


def wait_for(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.05)


def start(job, folder, *arguments):
    with open(job.root / 'sweep.txt', 'ab') as output:
        return subprocess.Popen([sys.executable, ROOT / 'tools/sweep.py', job.config, '--work-dir', folder, *arguments],
                                env=environment(), stdout=output, stderr=output)


def end_by(process, sign, folder):
    process.send_signal(sign)
    process.wait(120)
    wait_for(lambda: not processes(folder), 120)


def content(folder):
    """What must not depend on kills: everything but the trials' numbers."""
    results = json.loads((folder / 'results.json').read_text())
    trials = sorted(([t['settings'], t['state'], t['value'], t['validations']] for t in results['trials']), key=str)
    return dict(trials=trials, test=results['test'], best={k: v for k, v in results['best'].items() if k != 'number'})


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks for orphans in /proc')


@needs_proc
def test_killed_and_taken_up(job):
    """Two trials and a last run; kill -9 in the second trial costs what it had not saved, and leaves no process."""
    folder = job.root / 'sweep'
    process = forked.start('sweep.py', [job.config, '--work-dir', folder, *SMALL], job.root / 'sweep.txt',
                           environment=environment())
    wait_for((folder / 'study.db').exists)
    assert 'another holds' in tool('sweep.py', job.config, '--work-dir', folder, *SMALL, fails=True)
    wait_for(lambda: len(list(folder.glob('trials/*/*/vis_data/scalars.json'))) == 2)
    assert processes(folder / 'trials')
    process.kill()
    wait_for(lambda: not processes(folder), 120)
    assert not (folder / 'final').exists()

    output = tool('sweep.py', job.config, '--work-dir', folder, *SMALL)
    assert '1 trials are done, 1 were cut off' in output and not processes(job.root)
    results = content(folder)
    assert [state for _, state, _, _ in results['trials']] == ['complete'] * 2
    assert results['best']['validation'] == max(value for _, _, value, _ in results['trials'])
    result = json.loads(next(folder.glob('final/*/seed_0/result.json')).read_text())
    assert (result['seed'], result['num_images'], result['finished']) == (0, 6, True)
    assert results['test']['by_seed'] == {'0': result['metrics']['accuracy/top1']}
    assert result['recipe']['train.datasets.1.ann_file'] == 'val.txt'
    assert not list(folder.glob('trials/**/*.pth')) and len(list(folder.glob('final/*/*/epoch_2.pth'))) == 1
    assert {'history', 'validations', 'slices'} == {path.stem for path in (folder / 'plots').iterdir()}
    assert '| mean ± standard deviation | **' in (folder / 'results.md').read_text()


@pytest.mark.slow
@needs_proc
def test_killed_three_times_it_finds_what_it_finds_whole(job):
    whole, parts = job.root / 'whole', job.root / 'parts'
    tool('sweep.py', job.config, '--work-dir', whole, *ARGUMENTS)

    def finals():
        return sorted(parts.glob('final/*/seed_*/result.json'))

    process = start(job, parts, *ARGUMENTS)  # in the middle of the third trial
    wait_for(lambda: len(list(parts.glob('trials/*/*/vis_data/scalars.json'))) >= 3)
    assert processes(parts / 'trials')
    end_by(process, signal.SIGKILL, parts)
    assert not (parts / 'final').exists()
    process = start(job, parts, *ARGUMENTS, '--workers', '1')  # one seed is done, the other is not
    wait_for(lambda: len(finals()) == 1 and processes(parts / 'final'))
    end_by(process, signal.SIGKILL, parts)
    done = [path.stat().st_mtime_ns for path in finals()]
    logs = sorted(parts.glob('trials/*/*/vis_data/scalars.json'))
    assert len(done) == 1
    process = start(job, parts, *ARGUMENTS)
    wait_for(lambda: processes(parts / 'final'))
    end_by(process, signal.SIGTERM, parts)
    assert process.returncode == 128 + signal.SIGTERM

    output = tool('sweep.py', job.config, '--work-dir', parts, *ARGUMENTS)
    assert '4 trials are done, 0 were cut off' in output
    assert [path.stat().st_mtime_ns for path in finals()][:1] == done and len(finals()) == 2
    assert sorted(parts.glob('trials/*/*/vis_data/scalars.json')) == logs  # no trial was done again
    assert content(parts) == content(whole)
    assert not processes(job.root)
    assert 'the same command goes on' in (job.root / 'sweep.txt').read_text()

    results = content(whole)
    assert len(results['trials']) == 4 and list(results['test']['by_seed']) == ['0', '1']
    assert {path.stem for path in (whole / 'plots').iterdir()} == {
        'history', 'validations', 'slices', 'parallel_coordinates', 'importances'}
    report = tool('report.py', whole / 'final')
    assert f"{results['test']['mean']:.2f} ±{results['test']['std']:.2f}" in report
    refused = tool('sweep.py', job.config, '--work-dir', whole, *ARGUMENTS, 'model.head.num_classes=4', fails=True)
    assert "config.model.head.num_classes was 3, is 4): take the old config" in refused.replace('\n', ' ')


def prepare(monkeypatch, *arguments):
    """A search as the tool would begin it; its folder is not made."""
    monkeypatch.setattr(sys, 'argv', ['sweep.py', *map(str, arguments)])
    sweep = load_tool('sweep')
    return sweep.Search(sweep.parse_args(), Console(quiet=True))


OWN = "search_space = ['model.backbone.num_prompts=5,3', 'custom_hooks.0.initializer.k=2:8']\n" \
      "custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.VIPAMINInit', k=4, lam=0.))]\n"


@pytest.mark.parametrize(('extra', 'arguments', 'expected'), [
    ('', [], ['optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay',
              'optim_wrapper.paramwise_cfg.head_decay']),
    (OWN, [], ['model.backbone.num_prompts', 'custom_hooks.0.initializer.k']),
    (OWN, ['--search', 'lr=1e-3,1e-2'], ['optim_wrapper.optimizer.lr']),
    (OWN, ['--cfg-options', 'search_space=None'], ['optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay',
                                                   'optim_wrapper.paramwise_cfg.head_decay'])])
def test_where_the_space_comes_from(job, monkeypatch, extra, arguments, expected):
    job.write(extra=extra)
    begun = prepare(monkeypatch, job.config, *arguments)
    assert [parameter.key for parameter in begun.space] == expected
    assert 'search_space' not in begun.trial_cfg and 'search_space' not in begun.final_cfg


def test_the_same_space_is_the_same_search(job, monkeypatch):
    """Given or the config's: its folder may go on with either. Another space is another search."""
    job.write(extra=OWN)
    own, same, other = (identify(begun.trial_cfg, begun.space, 'accuracy/top1', None) for begun in (
        prepare(monkeypatch, job.config, *arguments) for arguments in (
            [], ['--search', 'model.backbone.num_prompts=5,3', 'custom_hooks.0.initializer.k=2:8'],
            ['--search', 'model.backbone.num_prompts=5,3', 'custom_hooks.0.initializer.k=2:9'])))
    assert own == same
    assert {key for key in own if own[key] != other[key]} == {'space.custom_hooks.0.initializer.k'}


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--cfg-options', 'val_dataloader.dataset.ann_file=test.txt'], "reads 'test.txt'"),
    (['--cfg-options', 'val_dataloader.dataset.ann_file=train.txt'], 'images are in train and in val')])
def test_refusals(job, arguments, message):
    """Before anything is trained; a bare --amp leaves the config that follows it alone."""
    output = tool('sweep.py', '--amp', job.config, '--work-dir', job.root / 'sweep', *arguments, fails=True)
    assert message in output
    assert not (job.root / 'sweep/study.db').exists()
