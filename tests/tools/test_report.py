"""The report of real runs: finished ones in tables, unfinished ones named, and none of the former lost."""
import json
import shutil
from dataclasses import replace

import pytest

from helpers import tool
from mmspt.evaluation import read_result, write_result


@pytest.fixture
def finished(job):
    """One run of the small job, and two more seeds of it as CUB's whole test would have left them."""
    job.write(extra='train_cfg = dict(max_epochs=2)')
    runs = job.root / 'runs'
    tool('train.py', job.config, '--work-dir', runs / 'job')
    real = read_result(str(runs / 'job/result.json'))
    for seed, accuracy in ((1, 79.), (2, 81.)):
        (runs / f'cub_{seed}').mkdir()
        write_result(replace(real, config='cub', task='cub', group='FGVC', split='test', num_images=5794, seed=seed,
                             arch='ViT-B', pretraining='MAE', num_prompts=20, metrics={'accuracy/top1': accuracy}),
                     str(runs / f'cub_{seed}/result.json'))
    return runs


def test_report(job, finished):
    out, pretraining = job.root / 'reports/all', finished / 'pretraining'
    pretraining.mkdir()  # has nothing to report, and is no fault
    (pretraining / 'mae.py').write_text('model = dict()\ntest_dataloader = None\n')
    (pretraining / 'last_checkpoint').write_text('epoch_300.pth')
    tool('test.py', job.config, finished / 'job/epoch_2.pth', '--work-dir', finished / 'job')  # changes nothing
    shown = tool('report.py', finished, finished / 'job', '--out', out)
    assert 'FGVC: top-1 accuracy (%)' in shown and '80.00 ±1.41' in shown and '80.13 ±0.34' in shown
    assert 'Other: top-1 accuracy (%)' in shown and 'CustomDataset data' in shown and '1 of 5 tasks' in shown
    assert f"skipped, since its config has no test_dataloader: '{pretraining}'" in shown

    content = json.loads(out.with_suffix('.json').read_text())
    assert [table['group'] for table in content['tables']] == ['FGVC', 'Other'] and content['unfinished'] == []
    assert [run['note'] for run in content['runs']] == [None] * 3
    assert sorted(run['seed'] for run in content['runs']) == [0, 1, 2]  # the run that was named twice counts once
    text = out.with_suffix('.md').read_text()
    assert '| SPT-Deep | ViT-B MAE | 80.00 ±1.41 |' in text
    assert '| epoch 2 of 2 | CustomDataset train.txt | test.txt, 6 images |' in text
    assert f'## Without a test\n\n- `{pretraining}`' in text and content['untested'] == [str(pretraining)]
    assert not list(out.parent.glob('*.tmp'))


def test_unfinished_runs_are_named_and_the_others_reported(job, finished):
    """Killed before the test, after half of the epochs, with half a file, with another metric; and a wrong name."""
    real = read_result(str(finished / 'job/result.json'))
    for name in ('killed', 'early', 'torn', 'metric'):
        shutil.copytree(finished / 'job', finished / name)
    (finished / 'killed/result.json').unlink()
    write_result(replace(real, epoch=1, finished=False, checkpoint='epoch_1.pth'), str(finished / 'early/result.json'))
    (finished / 'torn/result.json').write_text('{"config": ')
    write_result(replace(real, metrics={'multi-label/mAP': 50.}), str(finished / 'metric/result.json'))
    (job.root / 'empty').mkdir()

    shown = tool('report.py', finished, job.root / 'empty', job.root / 'absent', '--out', job.root / 'all', fails=True)
    assert '80.00 ±1.41' in shown and 'CustomDataset data' in shown and '3 finished run(s) reported' in shown
    flat = ' '.join(shown.split())
    for name, lacks in (('runs/killed', 'no result.json: not trained to its end, or not tested (last checkpoint: '
                                        'epoch_2.pth)'),
                        ('runs/early', "result.json is not of the training's end (epoch 1 of 2, epoch_1.pth)"),
                        ('runs/torn', 'a result must be whole JSON'),
                        ('runs/metric', "result.json has no 'accuracy/top1', only multi-label/mAP"),
                        ('empty', 'holds no run'), ('absent', 'is no folder')):
        assert f"'{job.root / name}': {lacks}" in flat
    assert len(json.loads((job.root / 'all.json').read_text())['unfinished']) == 6

    remedy = f'tools/train.py {finished}/killed/job.py --work-dir {finished}/killed --resume'
    assert remedy in flat
    tool(*remedy.removeprefix('tools/').split())
    assert read_result(str(finished / 'killed/result.json')) == real


def test_nothing_to_report(tmp_path):
    shown = tool('report.py', tmp_path, '--out', tmp_path / 'all', fails=True)
    assert 'a report needs a finished run, there is none' in shown and shown.count('name the --work-dir of a run') == 1
    assert 'Traceback' not in shown and not list(tmp_path.glob('all.*'))
