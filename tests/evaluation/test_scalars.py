"""Scalars of runs, resumed and running."""
import json

from mmspt.evaluation import read_scalars


def write(folder, records, end='\n'):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text('\n'.join(json.dumps(record) for record in records) + end)


def test_a_resumed_run_is_joined_and_the_later_part_counts(tmp_path):
    run = tmp_path / 'run [1]'
    write(run / '20260101_000000', [dict(loss=1., step=7), dict(acc=10., step=1), dict(acc=20., step=2)])
    write(run / '20260102_000000', [dict(acc=25., step=2), dict(acc=30., step=3)])
    assert read_scalars(str(run), 'acc') == {1: 10., 2: 25., 3: 30.}
    assert read_scalars(str(run), 'other') == {}
    assert read_scalars(str(tmp_path / 'absent'), 'acc') == {}


def test_a_line_that_is_being_written_waits(tmp_path):
    write(tmp_path / '20260101_000000', [dict(acc=10., step=1), dict(acc=20., step=2)], end='\n{"acc": 3')
    assert read_scalars(str(tmp_path), 'acc') == {1: 10., 2: 20.}
