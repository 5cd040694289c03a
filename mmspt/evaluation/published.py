"""Published accuracies (``published.csv``) and their sources; ``docs/published.md`` shows them."""
import csv
import os.path as osp
from typing import NamedTuple

SOURCES = {
    'SPT paper': 'Wang et al., "Revisiting the Power of Prompt for Visual Tuning", ICML 2024, '
                 'https://arxiv.org/abs/2402.02382',
    'SPT code': 'README of the code that the authors of the SPT paper released, '
                'https://github.com/WangYZ1608/Self-Prompt-Tuning',
    'GateVPT paper': 'Yoo et al., "Improving Visual Prompt Tuning for Self-supervised Vision Transformers", '
                     'ICML 2023, https://arxiv.org/abs/2306.05067',
    'VIPAMIN code': 'README of the code that the authors of "VIPAMIN: Visual Prompt Initialization via Embedding '
                    'Selection and Subspace Expansion" (https://arxiv.org/abs/2510.16446) released, '
                    'https://github.com/iamjaekyun/vipamin',
    'BPT poster': 'poster of Wang et al., "Attention to the Burstiness in Visual Prompt Tuning!", ICCV 2025, '
                  'https://arxiv.org/abs/2506.22908',
    'VFPT paper': 'Zeng et al., "Visual Fourier Prompt Tuning", NeurIPS 2024, https://arxiv.org/abs/2411.01327',
}


class Published(NamedTuple):
    """Accuracies in percent that one source reports for ViT-B/16 (``arch``)."""
    method: str
    pretraining: str
    group: str
    task: str | None
    """Key of ``mmspt.datasets.tasks.TASKS``; None for the mean of the group."""
    values: tuple[float, ...]
    """One, or one a seed."""
    source: str
    """Key of :data:`SOURCES`."""
    arch: str = 'ViT-B'


def read_published(path: str) -> tuple[Published, ...]:
    """Read a CSV file: a row a method, pre-training, group and source, with the group's mean, tasks, or both.

    Its column ``tasks`` has the form 'cub=80.26/80.39/79.74 dogs=82.23', a number a seed.
    """
    found: list[Published] = []
    with open(path, encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            cells: list[tuple[str | None, str]] = [(None, row['mean'])] if row['mean'] else []
            cells += [(task, values) for task, _, values in (cell.partition('=') for cell in row['tasks'].split())]
            found += [Published(row['method'], row['pretraining'], row['group'], task,
                                tuple(map(float, values.split('/'))), row['source']) for task, values in cells]
    return tuple(found)


PUBLISHED = read_published(osp.join(osp.dirname(__file__), 'published.csv'))
