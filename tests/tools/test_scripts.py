"""The command lines that the shell scripts build, shown by stand-ins for srun and python."""
import os
import socket
import subprocess

import pytest

from helpers import ROOT
from mmspt.engine.launch import default_work_dir


def run(script, *args, path='', python='python3'):
    environment = os.environ | dict(PATH=f'{path}:{os.environ["PATH"]}', GPUS='4', GPUS_PER_NODE='2', PYTHON=python)
    command = ['bash', str(ROOT / 'tools' / script), *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def stand_in(path):
    """A command that prints its arguments."""
    path.write_text('#!/bin/sh\nfor argument; do echo "$argument"; done\n')
    path.chmod(0o755)


@pytest.mark.parametrize(('variables', 'nodes'), [
    (dict(PORT='', MASTER_ADDR='head'), ['--standalone', '--local-addr=127.0.0.1']),
    (dict(PORT='1'), ['--nnodes=1', '--node_rank=0', '--master_addr=127.0.0.1', '--master_port=1']),
    (dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='head'),
     ['--nnodes=2', '--node_rank=1', '--master_addr=head', '--master_port=29500']),
])
def test_dist_test(variables, nodes, tmp_path, monkeypatch):
    """A free port unless one is named or there are several nodes; dist_train.sh runs in test_run.py."""
    monkeypatch.delenv('PORT', raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stand_in(tmp_path / 'python')
    done = run('dist_test.sh', 'my config.py', 'a b.pth', '2', '--work-dir', 'out dir', python=str(tmp_path / 'python'))
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[2:-7] == [*nodes, '--nproc_per_node=2'], done
    assert lines[-7:] == [str(ROOT / 'tools/test.py'), 'my config.py', 'a b.pth', '--launcher', 'pytorch', '--work-dir',
                          'out dir']


def test_a_port_in_use_is_one_line(tmp_path, monkeypatch):
    stand_in(tmp_path / 'python')
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv('PORT', str(port))
        done = run('dist_train.sh', 'config.py', '2', python=str(tmp_path / 'python'))
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == (f'the port must be free, but another program listens on {port} of 127.0.0.1: set PORT to '
                           'another number on every node, or on a single node leave PORT out\n')


@pytest.mark.parametrize(('script', 'fourth'), [('slurm_train.sh', '--work-dir=out dir'), ('slurm_test.sh', 'out dir')])
def test_slurm(script, fourth, tmp_path):
    stand_in(tmp_path / 'srun')
    done = run(script, 'gpu', 'job', 'my config.py', 'out dir', '--amp', path=str(tmp_path))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert {'-p', 'gpu', '--job-name=job', '--gres=gpu:2', '--ntasks=4', '--ntasks-per-node=2'} <= set(lines)
    tool = str(ROOT / 'tools' / script.replace('slurm_', '').replace('.sh', '.py'))
    assert lines[-7:] == ['python3', '-u', tool, 'my config.py', fourth, '--launcher=slurm', '--amp']


def test_too_few_arguments_show_the_usage():
    done = run('slurm_test.sh', 'config.py')
    assert done.returncode == 2 and 'usage:' in done.stderr and 'slurm_test.sh' in done.stderr


@pytest.mark.parametrize(('config', 'expected'), [
    ('/plugin/configs/spt/vit-b_mae_cub.py', 'work_dirs/spt/vit-b_mae_cub'),
    ('configs/mine.py', 'work_dirs/mine'),
])
def test_recipes_of_one_name_get_folders_of_their_own(config, expected):
    assert default_work_dir(config) == expected


def test_slurm_workers(tmp_path):
    """An array of workers; what each of its jobs would run is the worker's command, whatever the plan's name has."""
    stand_in(tmp_path / 'sbatch')
    stand_in(tmp_path / 'python')
    done = run('slurm_workers.sh', 'gpu', 'job', '8', 'my plan.yaml', '--storage', 'a b', path=str(tmp_path),
               python=str(tmp_path / 'python'))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert {'-p', 'gpu', '--job-name=job', '--array=1-8', '--gres=gpu:1', '--signal=B:TERM@120'} <= set(lines)
    job = subprocess.run(['sh', '-c', lines[-1].removeprefix('--wrap=')], capture_output=True, text=True, check=True)
    assert job.stdout.splitlines() == ['-u', str(ROOT / 'tools/benchmark.py'), 'worker', 'my plan.yaml', '--storage',
                                       'a b']
