"""The build's only definition; pyproject.toml holds tool settings."""
import shutil
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).parent
ZOO = ('configs', 'tools', 'model-index.yml')  # what MMEngine and mim look for in mmspt/.mim/


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def facts() -> dict[str, Any]:
    """What ``mmspt/version.py`` says, read without an import of mmspt, which needs what is to be installed."""
    content: dict[str, Any] = {}
    exec((ROOT / 'mmspt' / 'version.py').read_text(encoding='utf-8'), content)
    return content


def copy_zoo(folder: Path) -> None:
    """Copy :data:`ZOO` into a build's ``mmspt/.mim/``; what an earlier build left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ZOO:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'))
        else:
            shutil.copy2(ROOT / name, folder / name)


def link_zoo() -> None:
    """Link :data:`ZOO` into the source tree's ``mmspt/.mim/``, relatively, so that the tree can be moved."""
    folder = ROOT / 'mmspt' / '.mim'
    folder.mkdir(exist_ok=True)
    for name in ZOO:
        if (folder / name).is_symlink():
            (folder / name).unlink()
        (folder / name).symlink_to(Path('..', '..', name))


class BuildPy(build_py):
    """Also of ``pip install -e`` (PEP 660), which builds with ``editable_mode``."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):  # not before setuptools 64
            link_zoo()
        else:
            copy_zoo(Path(self.build_lib, 'mmspt', '.mim'))


class Develop(develop):
    """``setup.py develop``, which old pip and setuptools take for ``pip install -e``."""

    def run(self) -> None:
        link_zoo()
        super().run()


mim = requirements('mminstall')
# mmcv-lite is the same module as mmcv, without compiled operators: one or the other, never both. Neither is in
# install_requires, where pip would lay one over the other. MMEngine 0.10 needs pkg_resources (setuptools < 82).
lite = [line.replace('mmcv>', 'mmcv-lite>') for line in mim] + ['setuptools<82']
known = facts()
oldest, newest = known['OLDEST_PYTHON'], known['NEWEST_PYTHON']

setup(
    name='mmspt',
    version=known['__version__'],
    description='Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache License 2.0',
    packages=find_packages(include=['mmspt', 'mmspt.*']),
    package_data={'mmspt.evaluation': ['*.csv'], 'mmspt.visualization': ['*.html', '*.mplstyle']},
    cmdclass={'build_py': BuildPy, 'develop': Develop},
    python_requires=f'>={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}',
    install_requires=requirements('runtime'),
    extras_require={
        'mim': mim,
        'lite': lite,
        'optional': requirements('optional'),
        'gpu': requirements('gpu'),
        'onnx': requirements('onnx'),
        'search': requirements('search'),
        'postgres': requirements('postgres'),
        'hub': requirements('hub'),
        'dev': [line for name in ('tests', 'optional', 'search', 'postgres', 'onnx', 'hub')
                for line in requirements(name)],
    },
)
