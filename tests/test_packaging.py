"""The files of an installation: the zoo once, copied; links in editable mode; nothing left in the source tree."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from helpers import ROOT, environment

FILES = ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'model-index.yml')
FOLDERS = ('configs', 'tools', 'requirements', 'mmspt')


@pytest.fixture
def source(tmp_path):
    """A copy of what a build reads, with what running leaves behind."""
    folder = tmp_path / 'source'
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    for name in ('configs/spt', 'tools', 'mmspt'):
        (folder / name / '__pycache__').mkdir()
        (folder / name / '__pycache__' / 'stale.cpython-311.pyc').write_bytes(b'')
    return folder


def build(source, hook, target):
    """Call a hook of the build backend (PEP 517, PEP 660), as pip does, and return the file that it made."""
    target.mkdir()
    code = f'import setuptools.build_meta as backend; print(backend.{hook}({str(target)!r}))'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=source, env=environment(),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target / done.stdout.splitlines()[-1]


def expected():
    """Every file of the repository that belongs into ``.mim``."""
    found = [path for name in ('configs', 'tools') for path in (ROOT / name).rglob('*')]
    return {str(path.relative_to(ROOT)) for path in found if path.is_file() and '__pycache__' not in path.parts} | {
        'model-index.yml'}


def in_mim(names):
    return [name.removeprefix('mmspt/.mim/') for name in names if name.startswith('mmspt/.mim/')]


def test_a_wheel_holds_the_zoo_once(source, tmp_path):
    """Built from a source distribution; leftovers of earlier builds stay out."""
    with tarfile.open(build(source, 'build_sdist', tmp_path / 'sdist')) as archive:
        archive.extractall(tmp_path / 'unpacked')
    unpacked, = (tmp_path / 'unpacked').iterdir()
    assert not list(unpacked.rglob('*.pyc')) and not list(unpacked.rglob('.mim'))
    (unpacked / 'build' / 'lib' / 'mmspt' / '.mim').mkdir(parents=True)
    (unpacked / 'build' / 'lib' / 'mmspt' / '.mim' / 'stale.py').write_text('')
    names = zipfile.ZipFile(build(unpacked, 'build_wheel', tmp_path / 'wheel')).namelist()
    zoo = in_mim(names)
    assert set(zoo) == expected() and len(zoo) == len(set(zoo))
    assert 'configs/pretrain/vit-xs_mae_digits.safetensors' in zoo
    assert {name.split('/')[0] for name in names} == {'mmspt', names[-1].split('/')[0]}
    assert not (unpacked / 'mmspt' / '.mim').exists()


@pytest.mark.slow
def test_editable_links_and_a_wheel_of_that_tree_has_files(source, tmp_path):
    """Twice, as pip install -e after a change."""
    for name in ('first', 'second'):
        names = zipfile.ZipFile(build(source, 'build_editable', tmp_path / name)).namelist()
        assert in_mim(names) == []
        links = {path.name: str(path.readlink()) for path in (source / 'mmspt' / '.mim').iterdir()}
        assert links == {name: f'../../{name}' for name in ('configs', 'tools', 'model-index.yml')}
    archive = zipfile.ZipFile(build(source, 'build_wheel', tmp_path / 'wheel'))
    assert set(in_mim(archive.namelist())) == expected()
    assert archive.read('mmspt/.mim/model-index.yml') == (ROOT / 'model-index.yml').read_bytes()


def test_develop_links(source):
    """``setup.py develop`` of setuptools before 80, which pip without PEP 660 calls; later it is pip itself."""
    code = 'import sys, setuptools.command.develop as d; d.develop.run = lambda self: None; ' \
        'sys.argv = ["setup.py", "-q", "develop"]; exec(compile(open("setup.py").read(), "setup.py", "exec"))'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', f'__file__ = "setup.py"; {code}'], cwd=source,
                   env=environment(), check=True, capture_output=True)
    assert (source / 'mmspt' / '.mim' / 'tools' / 'train.py').is_file()


@pytest.mark.slow
def test_a_wheel_trains_a_config_that_inherits_from_it(source, tmp_path):
    """By the wheel's tools, from a folder without the repository; the backbone is the wheel's copy."""
    site, job = tmp_path / 'site', tmp_path / 'job'
    zipfile.ZipFile(build(source, 'build_wheel', tmp_path / 'wheel')).extractall(site)
    job.mkdir()
    (job / 'mine.py').write_text("_base_ = 'mmspt::spt/vit-xs_mae_digits.py'\ntrain_cfg = dict(max_epochs=1)\n")
    others = environment()['PYTHONPATH'].partition(os.pathsep)[2]  # the forks, if they are tested
    done = subprocess.run([sys.executable, site / 'mmspt/.mim/tools/train.py', 'mine.py', '--no-validate'], cwd=job,
                          env=environment() | dict(PYTHONPATH=os.pathsep.join(filter(None, [str(site), others]))),
                          capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert f'from path: {site}/mmspt/.mim/' in output and 'accuracy/top1' in output
    assert (job / 'work_dirs/mine/result.json').is_file()
