"""docs/published.md and mmspt/evaluation/published.py hold the same numbers and sources."""
from helpers import ROOT
from mmspt.evaluation import PUBLISHED, SOURCES

TEXT = (ROOT / 'docs/published.md').read_text()


def test_docs_and_data_agree():
    lines = [line.strip('| ').split(' | ') for line in TEXT.splitlines() if line.startswith('| ')]
    documented = {(method, pretraining, group, task, tuple(float(value) for value in values.split(', ')), source)
                  for method, pretraining, group, task, values, source in lines[2:]}
    assert len(lines) - 2 == len(documented) == len(PUBLISHED)
    assert documented == {(p.method, p.pretraining, p.group, p.task or 'mean', p.values, p.source) for p in PUBLISHED}


def test_sources_are_documented():
    flat = ' '.join(TEXT.split())
    for name, source in SOURCES.items():
        assert f'**{name}**: {source}' in flat
    assert {p.source for p in PUBLISHED} == set(SOURCES)


def test_the_table_of_methods_holds_the_same():
    """docs/methods.md: a column a group, means alone."""
    lines = (ROOT / 'docs/methods.md').read_text().split('## Published accuracies')[1].split('##')[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('| ')]
    groups = [cell.split()[-1] for cell in head[2:]]
    table = {(method, pretraining, group): (float(cell), ) for method, pretraining, *cells in rows
             for group, cell in zip(groups, cells, strict=True) if cell}
    assert table == {(p.method, p.pretraining, p.group): p.values for p in PUBLISHED if p.task is None}
