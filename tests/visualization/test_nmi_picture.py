"""NMI over training: what was logged is what is drawn."""
import pytest

from made_runs import make_run, nmi, train
from mmspt.visualization import draw_curves, draw_nmi


def test_means_and_maps(tmp_path):
    """Two seeds and another setting; the later part of a resumed run counts."""
    runs = [make_run(tmp_path / 'a', [nmi(0, 0., .1, .3), nmi(5, 1., .9, .9)], [nmi(5, 1., .2, .4)]),
            make_run(tmp_path / 'b', [nmi(0, 0., .3, .5), nmi(5, 1., .4, .8)], seed=1),
            make_run(tmp_path / 'c', [nmi(0, 0., .02, .04), nmi(5, 1., .04, .08)], initializer='UniformInit')]
    picture = draw_nmi(runs)
    lines = {line.get_label(): line.get_ydata() for line in picture.figure.axes[0].lines}
    assert lines['SPT-Deep (2 seeds)'] == pytest.approx([.3, .45])
    assert lines['VPT-Deep'] == pytest.approx([.03, .06])
    meshes = {axes.get_title(): axes.collections[0].get_array() for axes in picture.figure.axes[1:3]}
    assert meshes['SPT-Deep'].tolist() == [pytest.approx([.2, .3]), pytest.approx([.4, .6])]  # block x epoch
    assert meshes['VPT-Deep'].tolist() == [pytest.approx([.02, .04]), pytest.approx([.04, .08])]
    assert [row[2:] for row in picture.rows if row[1].endswith('a')] == [
        (0., 0, 1, .1), (0., 0, 2, .3), (0., 0, 'mean', .2), (1., 5, 1, .2), (1., 5, 2, .4),
        (1., 5, 'mean', pytest.approx(.3))]
    assert 'SPT-Deep: 0.3 at first, 0.45 at last' in picture.caption


@pytest.mark.parametrize('first, last, scale, kind', [
    ((.1, .1, .1), (.2, .2, .2), 'linear', 'Normalize'), ((.001, .001, .001), (.2, .2, .2), 'log', 'LogNorm'),
    ((1e-4, 1e-4, .2), (1e-4, 1e-4, .16), 'linear', 'LogNorm')])
def test_scales(tmp_path, first, last, scale, kind):
    """A wide range is drawn on a logarithmic axis; one high block alone does not hide the others, of one colour."""
    axes, *maps = draw_nmi([make_run(tmp_path / 'a', [nmi(0, 0., *first), nmi(5, 1., *last)])]).figure.axes
    assert axes.get_yscale() == scale and type(maps[0].collections[0].norm).__name__ == kind


def test_epochs_are_counted_in_whole_numbers(tmp_path):
    """Two epochs would otherwise have ticks at 0.25, 0.5, ..."""
    run = make_run(tmp_path / 'a', [train(5, 1, 2.), train(10, 2, 1.), nmi(0, 0., .1, .3), nmi(5, 1., .2, .4),
                                    nmi(10, 2., .2, .4)])
    for picture in (draw_nmi([run]), draw_curves([run])):
        axes = picture.figure.axes[0]
        assert [tick for tick in axes.get_xticks() if 0 <= tick <= 2] == [0, 1, 2]


def test_a_run_without_nmi_names_the_command(tmp_path):
    with pytest.raises(ValueError, match=r'a/job.py --work-dir .*a_nmi --cfg-options '
                       r'default_hooks.nmi.type=mmspt.PromptNMIHook default_hooks.nmi.interval=50'):
        draw_nmi([make_run(tmp_path / 'a', [dict(loss=1., iter=1, epoch=1, step=1)])])


def test_normalizers_are_not_mixed(tmp_path):
    runs = [make_run(tmp_path / kind, [nmi(0, 0., .1, .3)],
                     hooks=f'nmi=dict(type="mmspt.PromptNMIHook", normalizer="{kind}")') for kind in ('min', 'max')]
    with pytest.raises(ValueError, match=r"min' has min as normalizer, .*max' has max as normalizer"):
        draw_nmi(runs)
    assert 'normalizer: min' in draw_nmi(runs[:1]).caption


def test_prompts_that_diverged_are_named(tmp_path):
    fine = make_run(tmp_path / 'a', [nmi(0, 0., .1, .3), nmi(5, 1., .2, .2)])
    broken = make_run(tmp_path / 'b', [nmi(0, 0., .1, .3), nmi(5, 1., float('nan'), .2)], initializer='UniformInit')
    picture = draw_nmi([fine, broken])
    assert f'Not finite in part, since prompts diverged: {broken.folder}.' in picture.caption
    assert picture.render('png').startswith(b'\x89PNG')
    with pytest.raises(ValueError, match=r'must be finite somewhere, but it is not in .*c: the prompts diverged'):
        draw_nmi([make_run(tmp_path / 'c', [nmi(0, 0., float('nan'), float('nan'))])])
