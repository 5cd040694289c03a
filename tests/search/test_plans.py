"""Plans: which cells there are, in which order, from which configs; and those that are shipped."""
from pathlib import Path

import pytest

from helpers import ROOT
from mmspt.search.plan import make, read_plan, slug

PLAN = '''
config: ../{folder}/vit-b_{checkpoint}_{task}{ending}.py
trials: 7
ending: ''
options: [model.backbone.init_cfg.checkpoint=x.pth]
search: ['lr=0.1,0.2']
checkpoints: {mae: {title: MAE}, mocov3: }
tasks: {cub: {seeds: 5}, dogs: }
methods:
  VPT-Deep: {folder: vpt}
  VPT-Shallow: {folder: vpt, ending: _shallow}
  SPT-Deep, K-means:
    folder: spt
    trials: 4
    options: [custom_hooks.0.initializer.type=mmspt.KMeansInit]
cells:
  - {methods: ['SPT-Deep, K-means'], tasks: [dogs]}
  - {checkpoints: [mae]}
'''


@pytest.fixture
def write():
    """write(text) -> path of a plan beside the shipped ones; it goes with the test."""
    path = Path(ROOT) / 'configs' / 'plans' / 'of_a_test.yaml'

    def write(text):
        path.write_text(text, encoding='utf-8')
        return str(path)

    yield write
    path.unlink(missing_ok=True)


def test_cells_in_the_order_of_their_worth(write):
    plan = read_plan(write(PLAN))
    assert [entry['name'] for entry in plan.entries] == [
        'mae/dogs/spt-deep-k-means', 'mocov3/dogs/spt-deep-k-means', 'mae/cub/vpt-deep', 'mae/cub/vpt-shallow',
        'mae/cub/spt-deep-k-means', 'mae/dogs/vpt-deep', 'mae/dogs/vpt-shallow']
    shallow = plan.entries[3]
    assert Path(shallow['config']).resolve() == Path(ROOT, 'configs/vpt/vit-b_mae_cub_shallow.py')
    assert (shallow['budget'], plan.entries[0]['budget']) == (dict(trials=7, seeds=5), dict(trials=4))
    assert plan.entries[0]['options'] == ['model.backbone.init_cfg.checkpoint=x.pth',
                                          'custom_hooks.0.initializer.type=mmspt.KMeansInit']
    cell = make(plan.entries[0])
    assert "checkpoint='x.pth'" in cell.trial_config and 'mmspt.KMeansInit' in cell.trial_config
    assert cell.row['checkpoint_title'] == 'MAE' and cell.row['method_title'] == 'SPT-Deep, K-means'
    assert (cell.budget.trials, cell.budget.seeds, len(cell.space)) == (4, 3, 1)


@pytest.mark.parametrize(('before', 'after', 'message'), [
    ('tasks: [dogs]}', 'tasks: [dog]}', r"names 'dog'; known are cub, dogs: correct it"),
    ("methods: ['SPT-Deep, K-means'], ", 'methods: [SPT], ', "names 'SPT'; known are VPT-Deep, VPT-Shallow, SPT-Deep"),
    ('trials: 7', 'trails: 7', "has 'trails': write trials"),
    ('methods:', 'metods:', "has 'metods': write methods"),
    ("ending: ''\n", '', "names 'ending', which mae, dogs, SPT-Deep, K-means do not have"),
    ('config: ', 'title: ', 'must say which config a cell has'),
    ('options: [custom', 'option: [custom', "'SPT-Deep, K-means' of .* has 'option': write options"),
    ('  VPT-Deep: {folder', '  VPT-Deep: {serach: x, folder', "has 'serach': write search"),
    ('backbone.init_cfg.checkpoint=x.pth', 'backbone.num_prompts=', 'options must be a list of texts KEY=VALUE'),
    ("search: ['lr=0.1,0.2']", 'search: lr=0.1', 'search must be a list of texts'),
    ('checkpoints: {mae: {title: MAE}, mocov3: }', 'checkpoints: [mae]', r"must have checkpoints.* has \['mae'\]"),
    ('  VPT-Shallow:', '  VPT (deep): {folder: vpt}\n  vpt-deep:', "has two with 'mae.cub.vpt-deep'"),
    ('{folder: vpt}', '{folder: vpt, title: VPT-Shallow}', "two with .'MAE', 'cub', 'VPT-Shallow'"),
])
def test_what_a_plan_must_have(write, before, after, message):
    with pytest.raises(ValueError, match=message):
        read_plan(write(PLAN.replace(before, after, 1)))


@pytest.mark.parametrize(('before', 'after', 'message'), [
    ('folder: spt', 'folder: sbt', r"'mae/dogs/spt-deep-k-means' of of_a_test has not: .*sbt"),
    ("['lr=0.1,0.2']", "['lrr=0.1,0.2']", "has no 'lrr'"),
    ('trials: 4', 'trials: 0', 'trials must be a whole number from 1 on, got 0'),
    ('seeds: 5', "seeds: '5'", "seeds must be a whole number from 0 on, got '5'"),
    ('trials: 7', 'trials: 7\nstop_within: yes please', "stop_within a number, got False and 'yes please'")])
def test_a_cell_whose_config_is_wrong_is_named(write, before, after, message):
    with pytest.raises(ValueError, match=message):
        list(read_plan(write(PLAN.replace(before, after))).cells())


@pytest.mark.parametrize('path', sorted(Path(ROOT, 'configs', 'plans').glob('*.yaml')), ids=lambda path: path.stem)
def test_shipped(path):
    """Each plan's cells have configs that exist; one of each method can be made."""
    plan = read_plan(str(path))
    assert plan.entries and all(Path(entry['config']).is_file() for entry in plan.entries)
    assert len({entry['name'] for entry in plan.entries}) == len(plan.entries)
    for entry in {entry['titles']['method_title']: entry for entry in plan.entries}.values():
        assert make(entry).space


def test_python_plans_and_base(tmp_path):
    (tmp_path / 'base.yaml').write_text(PLAN)
    (tmp_path / 'own.py').write_text("_base_ = './base.yaml'\ntrials = 9\ncells = [dict(tasks=['cub'], "
                                     "checkpoints=['mae'], methods=['VPT-Deep'])]\n")
    plan = read_plan(str(tmp_path / 'own.py'))
    assert [(entry['name'], entry['budget']['trials']) for entry in plan.entries] == [('mae/cub/vpt-deep', 9)]


def test_slug():
    assert slug('SPT-Deep, K-means (20)') == 'spt-deep-k-means-20' and slug('方法一') == '方法一'
