"""docs/published.md and mmspt/evaluation/published.py hold the same numbers and sources."""
from helpers import ROOT
from mmspt.evaluation import PUBLISHED, SOURCES

TEXT = (ROOT / 'docs/published.md').read_text()


def test_docs_and_data_agree():
    """A column a group for the means; a line for what is known of a single task."""
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')]
                      for line in TEXT.splitlines() if line.startswith('| ')]
    groups = [cell.split()[-1] for cell in head[2:-1]]
    table = {(method, pretraining, group, (float(cell), ), source) for method, pretraining, *cells, source in rows
             for group, cell in zip(groups, cells, strict=True) if cell}
    assert table == {(p.method, p.pretraining, p.group, p.values, p.source) for p in PUBLISHED if p.task is None}
    alone, = (p for p in PUBLISHED if p.task is not None)
    values = ', '.join(f'{value:.2f}' for value in alone.values)
    assert f'{alone.method}, {alone.pretraining}, {alone.task}: {values} ({alone.source})' in TEXT


def test_sources_are_documented():
    flat = ' '.join(TEXT.split())
    for name, source in SOURCES.items():
        assert f'**{name}**: {source}' in flat
    assert {p.source for p in PUBLISHED} == set(SOURCES)
