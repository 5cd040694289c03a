"""What the study's page says is what its table holds: leads, epochs, and a picture of what has ended."""
import json
import sys

import pytest
from matplotlib.figure import Figure
from PIL import Image

import study
from study import accuracies, compare, epochs


def cell(name, values, curve=(50., 94., 99., 100.), rate=0.01):
    """A cell of table.json that has ended, with the tests of these seeds, or is waiting."""
    setting = {'optim_wrapper.optimizer.lr': rate}
    line = {str(epoch): value for epoch, value in enumerate(curve, 1)}
    return dict(
        cell=name, state='done' if values else 'waits', row=dict(task_title=name, checkpoint_title='read from CLS'),
        best=dict(number=0, settings=setting) if values else None,
        test=dict(by_seed={str(seed): value for seed, value in enumerate(values)}),
        curves={str(seed): line for seed in range(2)} if name.endswith('spt-deep') and values else {},
        trials=[dict(number=0, settings=setting, value=curve[-1], validations=line)] if values else [])


CELLS = {found['cell']: found for found in (
    cell('cls/flowers17/spt-deep', (96., 97., 98.)), cell('cls/flowers17/vpt-deep', (95., 95., 95.)),
    cell('cls/flowers17/linear', (94., 96., 90.)), cell('cls/flowers17_10/spt-deep', (80., 81., 82., 83.)),
    cell('cls/flowers17_10/vpt-deep', (70., 71., 72., 70.)), cell('cls/flowers17_10/linear', ()),
    cell('cls/ucmerced/spt-deep', (91., 92.)), cell('cls/ucmerced/vpt-deep', (90., 91.)),
    cell('cls/ucmerced/linear', (80., 81.)) | dict(state='1/2 tests'))}


def test_differences():
    """By hand: differences 1, 2, 3 have a mean of 2 and a deviation of 1; t of 2 degrees is 4.303. 95 % of 100 is
    reached in the third epoch. A cell that has not ended has no row."""
    assert compare(CELLS, accuracies) == [
        ['cls/flowers17: spt-deep - vpt-deep', '97.0 ± 1.0', '95.0 ± 0.0', '+2.0 ± 2.5', '3', 'undecided'],
        ['cls/flowers17: spt-deep - linear', '97.0 ± 1.0', '93.3 ± 3.1', '+3.7 ± 9.4', '3', 'undecided'],
        ['cls/flowers17: vpt-deep - linear', '95.0 ± 0.0', '93.3 ± 3.1', '+1.7 ± 7.6', '3', 'undecided'],
        ['cls/flowers17_10: spt-deep - vpt-deep', '81.5 ± 1.3', '70.8 ± 1.0', '+10.8 ± 2.4', '4', 'above'],
        ['cls/ucmerced: spt-deep - vpt-deep', '91.5 ± 0.7', '90.5 ± 0.7', '+1.0 in every seed', '2', 'undecided']]
    assert epochs(CELLS['cls/flowers17/spt-deep']) == {'0': 3., '1': 3.} and not epochs(CELLS['cls/flowers17/linear'])


@pytest.mark.parametrize('shares', [False, True])
def test_the_picture_has_what_has_ended(shares, tmp_path, monkeypatch):
    """Two panels of Flowers-17; the shares once there are two."""
    more = [cell(f'cls/flowers17_30/{method}', (60., 61.)) for method in study.METHODS] if shares else []
    rates = cell('cls/flowers17_rates/spt-deep', (), rate=0.1) | dict(state='done', trials=[
        dict(number=0, settings={'optim_wrapper.optimizer.lr': 0.1}, value=7., validations={})])
    cells = {found['cell']: found for found in (*CELLS.values(), *more, rates)}
    drawn = []
    for panel in study.panels(cells):
        drawn.append(Figure().subplots())
        panel(drawn[-1])
    curves, rates = drawn[:2]
    assert [axes.get_title() for axes in drawn] == ['cls/flowers17/spt-deep'] * 2 + [
        'Flowers-17, fewer labels'] * shares
    assert [list(line.get_ydata()) for line in curves.get_lines()] == [[50., 94., 99., 100.]] * 3
    assert [line.get_xydata().tolist() for line in rates.get_lines()] == [
        [[0.01, 100.], [0.1, 7.]], *[[[0.01, 100.]]] * 2]
    if shares:
        assert [line.get_xydata().tolist() for line in drawn[2].get_lines()] == [
            [[30., 60.5], [100., last]] for last in (97., 95., 280 / 3)]
    (tmp_path / 'table.json').write_text(json.dumps(dict(cells=list(cells.values()))))
    monkeypatch.setattr(sys, 'argv', ['study.py', str(tmp_path / 'table.json'), str(tmp_path / 'study.png')])
    study.main()
    with Image.open(tmp_path / 'study.png') as picture:
        assert picture.format == 'PNG'
