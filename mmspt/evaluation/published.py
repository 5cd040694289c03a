"""Published accuracies (``published.csv``) and their sources; ``docs/published.md`` lists the same."""
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


with open(osp.join(osp.dirname(__file__), 'published.csv'), encoding='utf-8', newline='') as _file:
    PUBLISHED = tuple(
        Published(row['method'], row['pretraining'], row['group'], None if row['task'] == 'mean' else row['task'],
                  tuple(map(float, row['values'].split())), row['source']) for row in csv.DictReader(_file))
