"""The published numbers agree with each other, and docs/published.md shows all of them and their sources."""
import importlib.util
import re
from collections import defaultdict

import numpy as np
import pytest

from helpers import ROOT
from mmspt.datasets.tasks import GROUPS, TASKS
from mmspt.evaluation import PUBLISHED, SOURCES
from mmspt.evaluation.tables import METHODS

TEXT = (ROOT / 'docs/published.md').read_text()
COLUMNS = {group: (group, None) for group in GROUPS} | {task.name: (task.group, key) for key, task in TASKS.items()}


def load_extension():
    """docs/_ext/published.py, which needs no Sphinx."""
    spec = importlib.util.spec_from_file_location('docs_published', ROOT / 'docs/_ext/published.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_tables(text):
    """(method, pre-training, group, task, values, source) of every cell of the tables."""
    head, cells = [], []
    for line in text.splitlines():
        if not line.startswith('| '):
            head = []
            continue
        row = [cell.strip() for cell in line.strip('|').split('|')]
        if not head:
            head = row
            assert (head[0], head[1], head[-1]) == ('method', 'pre-training', 'source')
        elif row[0] != '---':
            for name, cell in zip(head[2:-1], row[2:-1], strict=True):
                if cell != '·':
                    values = tuple(float(value) for value in cell.split('/'))
                    cells.append((row[0], row[1], *COLUMNS[name], values, row[-1]))
    return cells


def test_the_page_shows_every_number_once():
    shown = read_tables(load_extension().fill_markers(TEXT))
    assert len(shown) == len(PUBLISHED) == 169
    assert set(shown) == {(p.method, p.pretraining, p.group, p.task, p.values, p.source) for p in PUBLISHED}


def test_a_marker_names_a_table():
    with pytest.raises(ValueError, match='must name one of fgvc'):
        load_extension().fill_markers('<!-- table: vtab -->')


def test_sources_are_documented():
    section = TEXT.partition('## Sources\n')[2].partition('\n## ')[0]
    flat = ' '.join(re.sub(r'<(https://\S+)>', r'\1', section).split())
    for name, source in SOURCES.items():
        assert f'**{name}**: {source}' in flat
    assert {p.source for p in PUBLISHED} == set(SOURCES)


def test_methods_are_called_as_runs_are():
    """Otherwise `tools/report.py` does not set them beside the runs."""
    assert {p.method for p in PUBLISHED} <= set(METHODS)
    assert {'BPT-Deep', 'BPT-Shallow', 'Full'} <= {p.method for p in PUBLISHED}


def test_means_of_tasks_are_the_published_means():
    """Of whatever source, as far as they are printed (two digits for FGVC, one for VTAB-1k): typing errors show."""
    tasks, means = defaultdict(dict), defaultdict(set)
    for p in PUBLISHED:
        if p.task is None:
            means[p.method, p.pretraining, p.group].update(p.values)
        elif len(p.values) == 1:
            tasks[p.method, p.pretraining, p.group][p.task] = p.values[0]
    assert len(tasks) == 16 + 6
    for key, values in tasks.items():
        assert set(values) == {name for name, task in TASKS.items() if task.group == key[2]}
        printed = 0.0101 if key[2] == 'FGVC' else 0.05
        assert np.mean(list(values.values())) == pytest.approx(*means[key], abs=printed), key


@pytest.mark.parametrize(('method', 'pretraining', 'task', 'value'), [
    ('BPT-Deep', 'MAE', 'cub', 82.00), ('BPT-Shallow', 'MoCo-v3', 'cars', 83.84), ('Full', 'MAE', 'vtab_svhn', 86.6)])
def test_numbers_of_single_tasks(method, pretraining, task, value):
    """Read again in the sources."""
    (found, ), = (p.values for p in PUBLISHED if (p.method, p.pretraining, p.task) == (method, pretraining, task))
    assert found == value


def test_spt_on_cub_is_the_mean_of_its_seeds():
    one, seeds = (next(p.values for p in PUBLISHED if (p.method, p.pretraining, p.task, p.source) == (
        'SPT-Deep', 'MAE', 'cub', source)) for source in ('BPT poster', 'SPT code'))
    assert len(seeds) == 3 and np.mean(seeds) == pytest.approx(*one, abs=0.005)
