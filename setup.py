"""The build's only definition; pyproject.toml holds tool settings."""
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def version() -> str:
    content: dict[str, str] = {}
    exec((ROOT / 'mmspt' / 'version.py').read_text(encoding='utf-8'), content)
    return content['__version__']


mim = requirements('mminstall')
# mmcv-lite is the same module as mmcv, without compiled operators: one or the other, never both. Neither is in
# install_requires, where pip would lay one over the other. MMEngine 0.10 needs pkg_resources (setuptools < 82).
lite = [line.replace('mmcv>', 'mmcv-lite>') for line in mim] + ['setuptools<82']

setup(
    name='mmspt',
    version=version(),
    description='Self-Prompt Tuning of frozen self-supervised Vision Transformers, for MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache License 2.0',
    packages=find_packages(include=['mmspt', 'mmspt.*']),
    package_data={'mmspt.visualization': ['*.mplstyle']},
    python_requires='>=3.10,<3.13',
    install_requires=requirements('runtime'),
    extras_require={
        'mim': mim,
        'lite': lite,
        'optional': requirements('optional'),
        'gpu': requirements('gpu'),
        'search': requirements('search'),
        'dev': requirements('tests') + requirements('optional') + requirements('search'),
    },
)
