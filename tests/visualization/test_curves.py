"""Accuracy and loss of made-up logs, with numbers worked out by hand."""
import pytest

from made_runs import make_run, train, val
from mmspt.visualization import draw_curves


def rows(picture, quantity):
    return [row[2:] for row in picture.rows if row[1].startswith(quantity)]


def test_loss_is_the_mean_of_an_epoch_and_a_resumed_part_counts(tmp_path):
    run = make_run(tmp_path / 'a', [train(1, 1, 4.), train(2, 1, 2.), val(1, 10.), train(3, 2, 9.)],
                   [train(3, 2, 1.), train(4, 2, 2.), val(2, 30.)])
    picture = draw_curves([run])
    assert rows(picture, 'training loss') == [(1, 3., 3., 3., 1), (2, 1.5, 1.5, 1.5, 1)]
    assert rows(picture, 'validation accuracy') == [(1, 10., 10., 10., 1), (2, 30., 30., 30., 1)]
    assert picture.header[2] == 'epoch'
    assert [axes.get_ylabel() for axes in picture.figure.axes] == ['validation accuracy (%)', 'training loss (nats)']
    assert {axes.get_xlabel() for axes in picture.figure.axes} == {'epoch'}


def test_seeds_make_a_band(tmp_path):
    runs = [make_run(tmp_path / str(seed), [train(1, 1, loss), val(1, accuracy)], seed=seed)
            for seed, (loss, accuracy) in enumerate([(1., 50.), (2., 60.), (6., 40.)])]
    picture = draw_curves(runs)
    assert rows(picture, 'training loss') == [(1, 3., 1., 6., 3)]
    assert rows(picture, 'validation accuracy') == [(1, 50., 40., 60., 3)]
    assert picture.figure.axes[-1].get_legend().get_texts()[0].get_text() == 'SPT-Deep (3 seeds)'


def test_iterations(tmp_path):
    records = [dict(loss=2., iter=10, step=10), dict(loss=1., iter=20, step=20), {'accuracy/top1': 5., 'step': 20}]
    picture = draw_curves([make_run(tmp_path / 'a', records, train='max_iters=20')])
    assert rows(picture, 'training loss') == [(10, 2., 2., 2., 1), (20, 1., 1., 1., 1)]
    assert picture.header[2] == 'iteration'


def test_what_cannot_be_drawn_names_the_command(tmp_path):
    silent, epochs = make_run(tmp_path / 'a'), make_run(tmp_path / 'b', [train(1, 1, 4.)])
    with pytest.raises(ValueError, match=r'wait for its first, or .*tools/train.py .*a/job.py --work-dir .*a_again'):
        draw_curves([silent])
    picture = draw_curves([epochs, silent])
    assert rows(picture, 'training loss') == [(1, 4., 4., 4., 1)]
    assert f'none of it yet: {silent.folder}.' in picture.caption
    iterations = make_run(tmp_path / 'c', [dict(loss=2., iter=10, step=10)], train='max_iters=20')
    with pytest.raises(ValueError, match='all count epochs or all iterations'):
        draw_curves([epochs, iterations])


def test_a_seed_that_is_not_done_ends_the_line_and_is_named(tmp_path):
    whole = make_run(tmp_path / 'a', [train(1, 1, 4.), train(2, 2, 2.)])
    picture = draw_curves([whole, make_run(tmp_path / 'b', [train(1, 1, 2.)], seed=1)])
    assert len(picture.figure.axes) == 1 and 'Without validation in some or all seeds: SPT-Deep.' in picture.caption
    assert rows(picture, 'training loss') == [(1, 3., 2., 4., 2)]
    assert "'SPT-Deep' ends at epoch 1, the last that all seeds have." in picture.caption


@pytest.mark.parametrize('count', [4, 9])
def test_many_settings_can_be_told_apart(tmp_path, count):
    """By colour, marker and line; the legend stands where no line does."""
    runs = [make_run(tmp_path / str(i), [train(1, 1, 4.), train(2, 2, 2.)], lr=i + 1) for i in range(count)]
    figure = draw_curves(runs).figure
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == count
    legend, = figure.legends if count > 4 else [figure.axes[0].get_legend()]
    assert len(legend.get_texts()) == count
    below = legend.get_window_extent().y1 <= figure.axes[0].get_window_extent().y0
    assert below == (count > 4)
