"""Checkpoints without the frozen backbone: smaller, and as good as whole ones."""
import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint

from forked import train
from helpers import golden_checkpoint, make_job, scalars, tool

MARK = 'backbone.fingerprint'
TUNED = {'backbone.prompts.tokens', 'head.fc.weight', 'head.fc.bias'}
EMA = "custom_hooks = _base_.custom_hooks + [dict(type='EMAHook', begin_epoch=2)]\n"
WHOLE = 'default_hooks.checkpoint.save_frozen=True'
SHORT = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.save_best=auto']


def load(path):
    return torch.load(path, map_location='cpu', weights_only=False)


def model_of(config, init=True, **backbone):
    """The config's classifier, its backbone's checkpoint loaded."""
    cfg = Config.fromfile(str(config))
    cfg.model.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor, _scope_='mmpretrain'))
    if init:
        model.init_weights()
    return model


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp('trained_only'))


@pytest.fixture(scope='module')
def runs(job, tmp_path_factory):
    """The same training with checkpoints of both kinds; weights are averaged from the second epoch on."""
    root = tmp_path_factory.mktemp('runs')
    config = root / 'job.py'
    config.write_text(f'_base_ = {job.config!r}\n{EMA}')
    for name, more in (('whole', [WHOLE]), ('short', [])):
        code, output = train([config, '--work-dir', root / name, '--cfg-options', *SHORT, *more], root / f'{name}.log')
        assert code == 0, output
    return root


def saved(model):
    """The model's state dict as checkpoints hold it."""
    with model.backbone.saved.without_frozen(model.backbone):
        return get_state_dict(model)


def test_a_checkpoint_holds_what_was_trained(runs):
    """And the whole one holds every weight, as stock checkpoints do."""
    for name in ('epoch_1.pth', 'epoch_2.pth', next((runs / 'short').glob('best_*')).name):
        whole, short = load(runs / 'whole' / name), load(runs / 'short' / name)
        assert set(short['state_dict']) == TUNED | {MARK}
        assert set(whole['state_dict']) == set(model_of(runs / 'job.py').state_dict()) > TUNED
        average = whole.get('ema_state_dict', {}).keys() & ({'steps'} | {f'module.{key}' for key in TUNED})
        assert set(short.get('ema_state_dict', {})) == average | ({f'module.{MARK}'} if average else set())
        for part, keys in (('state_dict', TUNED), ('ema_state_dict', average)):
            assert all(torch.equal(short[part][key], whole[part][key]) for key in keys)
    frozen = sum(value.nbytes for key, value in whole['state_dict'].items() if key not in TUNED)
    sizes = [(runs / name / 'epoch_2.pth').stat().st_size for name in ('whole', 'short')]
    assert sizes[0] - sizes[1] > frozen


def test_training_is_the_same(runs):
    whole, short = ([{key: record[key] for key in ('loss', 'accuracy/top1', 'step') if key in record}
                     for record in scalars(runs / name)] for name in ('whole', 'short'))
    assert whole == short and len(whole) > 8


def test_test_py(runs, tmp_path):
    found = []
    for name in ('whole', 'short'):
        out = tmp_path / f'{name}.pkl'
        tool('test.py', runs / 'job.py', runs / name / 'epoch_2.pth', '--work-dir', tmp_path / name, '--out', out,
             '--tta')
        found.append(torch.stack([result['pred_score'] for result in mmengine.load(out)]))
    assert torch.equal(*found) and found[0].shape == (6, 3)


def test_resume_from_a_whole_one(runs, tmp_path):
    """From the first of two epochs, to the same end; later checkpoints are short."""
    code, output = train([runs / 'job.py', '--work-dir', tmp_path, '--resume', runs / 'whole' / 'epoch_1.pth',
                          '--cfg-options', *SHORT], tmp_path / 'log')
    assert code == 0, output
    end, undisturbed = load(tmp_path / 'epoch_2.pth'), load(runs / 'short' / 'epoch_2.pth')
    assert set(end['state_dict']) == TUNED | {MARK} and set(end) == set(undisturbed)
    for part in {'state_dict', 'ema_state_dict'} & set(end):
        assert all(torch.equal(end[part][key], value) for key, value in undisturbed[part].items())


@pytest.mark.parametrize(('options', 'why'), [
    (['model.backbone.init_cfg=None', 'model.backbone.allow_random_backbone=True'], 'random weights are nowhere else'),
    ([f'load_from={golden_checkpoint("mae_shallow")}'], 'load_from replaced what init_cfg gave'),
    (['model.backbone.frozen=False'], 'all is trained'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_weights_that_init_cfg_would_not_restore_are_saved(options, why, job, tmp_path):
    tool('train.py', job.config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1',
         'optim_wrapper.paramwise_cfg=None', *options)
    state = load(tmp_path / 'epoch_1.pth')['state_dict']
    assert MARK not in state and 'backbone.layers.3.attn.qkv.weight' in state


@pytest.fixture(scope='module')
def trained(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    tool('train.py', job.config, '--work-dir', folder, '--cfg-options', 'train_cfg.max_epochs=1')
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize(('init_cfg', 'message'), [
    (dict(type='Pretrained', checkpoint=golden_checkpoint('mae_shallow')),
     r'fits no other: .* fingerprint [0-9a-f]{64}, this one has [0-9a-f]{64}\. Name .*its out_type'),
    (None, r'needs it \(fingerprint [0-9a-f]{64}\), but the model names none: set model\.backbone\.init_cfg'),
    (dict(type='Pretrained', checkpoint='not/there.pth'), r'not/there\.pth can not be found'),
], ids=['another', 'none', 'missing'])
def test_a_backbone_that_is_not_there(init_cfg, message, job, trained):
    model = model_of(job.config, init=False, init_cfg=init_cfg)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_checkpoint(model, str(trained))


@pytest.mark.parametrize(('init', 'prompts'), [(False, 5), (True, 0)], ids=['built', 'initialized'])
def test_loading_fills_every_weight(init, prompts, job, tmp_path):
    """Before and after init_weights; the backbone's numbers are the file's."""
    source = model_of(job.config, num_prompts=prompts)
    with torch.no_grad():
        source.head.fc.weight.normal_()
    torch.save(dict(state_dict=saved(source)), tmp_path / 'short.pth')
    assert set(saved(source)) - {'backbone.prompts.tokens'} == TUNED - {'backbone.prompts.tokens'} | {MARK}
    model = model_of(job.config, init=init, num_prompts=prompts)
    load_checkpoint(model, str(tmp_path / 'short.pth'))
    expected, found = source.state_dict(), model.state_dict()
    assert set(expected) == set(found) and all(torch.equal(found[key], value) for key, value in expected.items())
    model.backbone.check_weights()


def test_changed_frozen_weights_are_saved(job):
    """Whoever changed them and whenever; state dicts are whole again later."""
    model = model_of(job.config)
    weight = model.backbone.layers[2].ln1.weight
    before = weight.detach().clone()
    assert MARK in saved(model) and MARK not in model.state_dict()
    with torch.no_grad():
        weight[0] += 1e-6
    state = saved(model)
    assert MARK not in state and torch.equal(state['backbone.layers.2.ln1.weight'], weight)
    with torch.no_grad():
        weight.copy_(before)
    assert MARK in saved(model)
    weight.requires_grad_(True)
    assert MARK not in saved(model)
    weight.requires_grad_(False)
    model.half()
    assert MARK not in saved(model)


def test_frozen_weights_and_a_fingerprint_contradict(job, trained, tmp_path):
    content = load(trained)
    content['state_dict']['backbone.layers.0.ln1.weight'] = torch.full((64, ), 2.)
    torch.save(content, tmp_path / 'both.pth')
    with pytest.raises(ValueError, match='has both'):
        load_checkpoint(model_of(job.config), str(tmp_path / 'both.pth'))


def test_a_checkpoint_of_the_trained_is_no_backbone(job, trained):
    with pytest.raises(ValueError, match='saved without the frozen ones: name the checkpoint that it was tuned on'):
        model_of(job.config, init_cfg=dict(type='Pretrained', checkpoint=str(trained)))


def test_other_names_of_pretrained(job):
    """MMEngine knows one name alone, and draws weights anew after it has read others."""
    whole = model_of(job.config)
    other = model_of(job.config, init_cfg=dict(type=PretrainedInit, checkpoint=golden_checkpoint('mae_deep')))
    frozen = [key for key in whole.state_dict() if key.startswith('backbone.') and key != 'backbone.prompts.tokens']
    assert all(torch.equal(whole.state_dict()[key], other.state_dict()[key]) for key in frozen) and len(frozen) > 40
    assert MARK in saved(other)


def test_at_another_size_of_images(job, trained, tmp_path):
    """As with a whole checkpoint: the backbone is the file's, its positions resized."""
    model = model_of(job.config, init=False, img_size=48)
    load_checkpoint(model, str(trained))
    assert model.backbone.pos_embed.shape[1] == 37


def test_weights_that_were_there_before_are_not_init_cfgs(job, trained):
    """They fit the fingerprint, but the file that init_cfg names would not restore them: they are saved."""
    other = dict(type='Pretrained', checkpoint=golden_checkpoint('mae_shallow'))
    model = model_of(job.config, init=False, init_cfg=other)
    load_checkpoint(model, golden_checkpoint('mae_deep'))
    load_checkpoint(model, str(trained))
    assert MARK not in saved(model)
