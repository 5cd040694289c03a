"""The shell scripts hand the right command line over; a stand-in for srun shows it."""
import os
import subprocess

import pytest

from helpers import ROOT
from mmspt.engine.launch import default_work_dir


def run(script, *args, path=''):
    environment = os.environ | dict(PATH=f'{path}:{os.environ["PATH"]}', GPUS='4', GPUS_PER_NODE='2', PYTHON='python3')
    command = ['bash', str(ROOT / 'tools' / script), *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(('script', 'fourth'), [('slurm_train.sh', '--work-dir=out dir'), ('slurm_test.sh', 'out dir')])
def test_slurm(script, fourth, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor argument; do echo "$argument"; done\n')
    srun.chmod(0o755)
    done = run(script, 'gpu', 'job', 'my config.py', 'out dir', '--amp', path=str(tmp_path))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert {'-p', 'gpu', '--job-name=job', '--gres=gpu:2', '--ntasks=4', '--ntasks-per-node=2'} <= set(lines)
    tool = str(ROOT / 'tools' / script.replace('slurm_', '').replace('.sh', '.py'))
    assert lines[-7:] == ['python3', '-u', tool, 'my config.py', fourth, '--launcher=slurm', '--amp']


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_too_few_arguments_show_the_usage(script):
    done = run(script, 'config.py')
    assert done.returncode == 2 and 'usage:' in done.stderr and script in done.stderr


@pytest.mark.parametrize(('config', 'expected'), [
    ('configs/vpt/vit-b_mae_cub.py', 'work_dirs/vpt/vit-b_mae_cub'),
    ('/plugin/configs/spt/vit-b_mae_cub.py', 'work_dirs/spt/vit-b_mae_cub'),
    ('mine.py', 'work_dirs/mine'),
    ('configs/mine.py', 'work_dirs/mine'),
])
def test_recipes_of_one_name_get_folders_of_their_own(config, expected):
    assert default_work_dir(config) == expected
