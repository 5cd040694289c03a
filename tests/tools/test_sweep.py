"""The search for real: short trials and last runs, killed and taken up by the same command."""
import json
import os
import signal
import sys
import time

import optuna
import pytest
from rich.console import Console

import forked
from helpers import environment, load_tool, tool

SHORT = ['--cfg-options', 'train_cfg.max_epochs=2', 'param_scheduler.end=2']
SMALL = ['--search', 'lr=0.001,0.05', '--trials', '2', '--seeds', '1', '--workers', '1', *SHORT]


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


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks for orphans in /proc')


@needs_proc
@pytest.mark.slow
def test_killed_and_taken_up(job):
    """Two trials and a last run; kill -9 in the second trial and SIGTERM in the last run leave no process."""
    folder = job.root / 'sweep'
    log, arguments = job.root / 'sweep.txt', [job.config, '--work-dir', folder, *SMALL]
    process = forked.start('sweep.py', arguments, log, environment=environment())
    wait_for((folder / 'study.db').exists)
    assert 'another holds' in tool('sweep.py', *arguments, fails=True)
    wait_for(lambda: len(list(folder.glob('trials/*/*/vis_data/scalars.json'))) == 2)
    assert processes(folder / 'trials')
    process.kill()
    wait_for(lambda: not processes(folder), 120)
    assert not (folder / 'final').exists()
    process = forked.start('sweep.py', arguments, log, environment=environment())
    wait_for(lambda: processes(folder / 'final'))
    process.terminate()
    process.join(120)
    assert process.exitcode == 128 + signal.SIGTERM and not processes(folder)
    assert '1 trials are done, 1 were cut off' in log.read_text() and 'the same command goes on' in log.read_text()

    output = tool('sweep.py', *arguments)
    assert '2 trials are done, 0 were cut off' in output and not processes(job.root)
    results = json.loads((folder / 'results.json').read_text())
    assert [trial['state'] for trial in results['trials']] == ['complete'] * 2
    assert results['best']['validation'] == max(trial['value'] for trial in results['trials'])
    result = json.loads(next(folder.glob('final/*/seed_0/result.json')).read_text())
    assert (result['seed'], result['num_images'], result['finished']) == (0, 6, True)
    assert results['test']['by_seed'] == {'0': result['metrics']['accuracy/top1']}
    assert result['recipe']['train.datasets.1.ann_file'] == 'val.txt'
    assert not list(folder.glob('trials/**/*.pth')) and len(list(folder.glob('final/*/*/epoch_2.pth'))) == 1
    assert {'history', 'validations', 'slices'} == {path.stem for path in (folder / 'plots').iterdir()}
    assert '| mean ± standard deviation | **' in (folder / 'results.md').read_text()
    refused = tool('sweep.py', *arguments, 'model.head.num_classes=4', fails=True)
    assert 'began with others: take these, or another --work-dir' in refused.replace('\n', ' ')


def prepare(monkeypatch, *arguments):
    """A search as the tool would begin it; its folder is not made."""
    monkeypatch.setattr(sys, 'argv', ['sweep.py', *map(str, arguments)])
    sweep = load_tool('sweep')
    return sweep.Search(sweep.parse_args(), Console(quiet=True))


OWN = "search_space = ['model.backbone.num_prompts=5,3', 'custom_hooks.0.initializer.k=2:8']\n" \
      "custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.VIPAMINInit', k=4, lam=0.))]\n"


def test_where_the_space_comes_from(job, monkeypatch):
    """Given or the config's, the same space is the same search: its folder may go on with either."""
    job.write(extra=OWN)
    own, same, other = (prepare(monkeypatch, job.config, *arguments) for arguments in (
        [], ['--search', 'model.backbone.num_prompts=5,3', 'custom_hooks.0.initializer.k=2:8'],
        ['--cfg-options', 'search_space=None']))
    assert [parameter.key for parameter in own.cell.space] == [
        'model.backbone.num_prompts', 'custom_hooks.0.initializer.k']
    assert len(other.cell.space) == 3
    assert own.cell.identity == same.cell.identity != other.cell.identity


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--cfg-options', 'val_dataloader.dataset.ann_file=test.txt'], "reads 'test.txt'"),
    (['--search', 'optim_wrapper.paramwise_cfg.head_decy=0.1,9'], 'head_decy=0.1: write head_decay'),
    (['--cfg-options', 'val_dataloader.dataset.ann_file=train.txt'], 'images are in train and in val')])
def test_refusals(job, arguments, message):
    """Before anything is trained; a bare --amp leaves the config that follows it alone."""
    output = tool('sweep.py', '--amp', job.config, '--work-dir', job.root / 'sweep', *arguments, fails=True)
    assert message in output
    assert not (job.root / 'sweep/study.db').exists()


def test_a_folder_of_an_earlier_version(job, monkeypatch):
    """Its database has another form: it is refused, not begun anew among old runs."""
    folder = job.root / 'sweep'
    folder.mkdir()
    optuna.create_study(storage=f'sqlite:///{folder}/study.db', study_name='sweep')
    search = prepare(monkeypatch, job.config, '--work-dir', folder)
    with pytest.raises(ValueError, match='began with others: take these, or another --work-dir'):
        search.open_queue()
