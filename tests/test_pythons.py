"""The Pythons that are supported: what is installed on each, what `make` says to others, what the documents say."""
import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers import ROOT

SUPPORTED = ['3.10', '3.11', '3.12', '3.13', '3.14']
OTHERS = ['3.6', '3.9', '3.15', '4.0']
CONSTRAINTS = ROOT / 'requirements' / 'constraints.txt'


def make_setup(folder, python):
    """``make setup`` into ``folder`` with an interpreter that says it is ``python``, and makes no environment."""
    major, minor = python.split('.')
    fake = folder / f'python{python}'
    says = f"import sys; sys.version_info = ({major}, {minor}, 0, 'final', 0)"
    fake.write_text(f'#!/bin/sh\n[ "$1" = -c ] || {{ echo "asked for $*"; exit 7; }}\n'
                    f'exec {sys.executable} -c "{says}; $2"\n')
    fake.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    done = subprocess.run(['make', 'setup', f'PYTHON={fake}', f'VENV={folder / "made"}'], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    return done.stdout + done.stderr


@pytest.mark.parametrize('python', [SUPPORTED[0], SUPPORTED[-1]])
def test_make_takes_the_oldest_and_the_newest_python(tmp_path, python):
    assert f'asked for -m venv {tmp_path / "made"}' in make_setup(tmp_path, python)


@pytest.mark.parametrize('python', ['3.9', '3.15'])
def test_make_refuses_others_before_it_makes_anything(tmp_path, python):
    said = make_setup(tmp_path, python)
    assert f'mmspt needs Python {SUPPORTED[0]} to {SUPPORTED[-1]}, {tmp_path}/python{python} is {python}: ' in said
    assert 'asked for' not in said


def test_pip_takes_the_same(monkeypatch):
    monkeypatch.chdir(ROOT)
    written = []
    monkeypatch.setattr('setuptools.setup', lambda **arguments: written.append(arguments['python_requires']))
    exec(compile((ROOT / 'setup.py').read_text(), 'setup.py', 'exec'), {'__file__': str(ROOT / 'setup.py')})
    requires = SpecifierSet(written[0])
    assert all(f'{python}.1' in requires for python in SUPPORTED)
    assert not any(f'{python}.1' in requires for python in OTHERS)


def pins(python):
    """``{name: [version, ...]}`` of the constraints that hold on ``python``."""
    found = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith('#'):
            continue
        pin = Requirement(line)
        specifier, = pin.specifier
        assert specifier.operator == '==' and '*' not in specifier.version
        if pin.marker is None or pin.marker.evaluate({'python_version': python, 'python_full_version': f'{python}.1'}):
            found.setdefault(pin.name, []).append(specifier.version)
    return found


@pytest.mark.parametrize('python', SUPPORTED)
def test_the_constraints_name_one_version_of_every_package(python):
    found = pins(python)
    assert {name: versions for name, versions in found.items() if len(versions) != 1} == {}
    assert set(found) == set(pins(SUPPORTED[0]))


def test_the_linters_look_at_the_oldest():
    settings = (ROOT / 'pyproject.toml').read_text()
    assert f'target-version = "py{SUPPORTED[0].replace(".", "")}"' in settings
    assert f'python_version = "{SUPPORTED[0]}"' in settings


@pytest.mark.parametrize('name', ['README.md', 'docs/contributing.md', 'requirements/constraints.txt'])
def test_what_the_documents_say(name):
    said = re.findall(r'Python (\d+\.\d+) to (\d+\.\d+)', (ROOT / name).read_text())
    assert said and set(said) == {(SUPPORTED[0], SUPPORTED[-1])}
