"""What the report puts on its page; how it looks is tested with real runs in tests/tools/test_analyze.py."""
from made_runs import make_run, nmi, train
from mmspt.visualization.page import Absent
from mmspt.visualization.picture import Picture
from mmspt.visualization.report import draw_all, lay_out


def test_nothing_that_was_drawn_is_left_off(tmp_path):
    """A linear probe of another task changes the names of the settings, not what is shown of them."""
    runs = [make_run(tmp_path / 'linear', [train(1, 1, 2.)], num_prompts=0, task='Digits'),
            make_run(tmp_path / 'spt', [nmi(0, 0., .1, .2), train(1, 1, 2.)], task='Flowers'),
            make_run(tmp_path / 'young', task='Flowers', seed=1)]
    drawn = list(draw_all(runs))
    assert [type(item) for name, item in drawn if not name] == [Picture, Picture]  # the young one is left out
    others = [(name, item) for name, item in drawn if name]
    assert {name for name, _ in others} == {'Flowers: SPT-Deep'}
    assert all(isinstance(item, Absent) and 'python tools/train.py' in item.reason for _, item in others)  # no weights
    sections = dict(lay_out(runs, drawn))
    assert sections['Training'] == [item for name, item in drawn if not name]
    assert sections['Prompts of Flowers: SPT-Deep'][1:] == [item for _, item in others]
    assert sections['Prompts of Flowers: SPT-Deep'][0] == f'Of {tmp_path}/spt, one of 2 seeds.'
    folders = [row[0] for row in sections['Runs'][0].rows]
    assert folders == [run.folder for run in runs]
