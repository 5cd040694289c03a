"""What a user writes after --search arrives in the config, value for value."""
import argparse

import pytest
from mmengine.config import Config, DictAction

from mmspt.search.space import DEFAULT, SHORT, as_options, check_keys, describe, parse_space, read_space


def read_back(options):
    """tools/train.py's reading."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


@pytest.mark.parametrize(('text', 'low', 'high', 'log'), [
    ('1e-3:1e-1:log', 1e-3, 1e-1, True), (' 1 : 8 : log ', 1, 8, True), ('-2:-1.5', -2, -1.5, False)])
def test_range(text, low, high, log):
    parameter, = parse_space([f'lr={text}'])
    assert parameter == ('optim_wrapper.optimizer.lr', None, low, high, log)


@pytest.mark.parametrize(('text', 'arrives'), [
    ('0.1,0.3', [0.1, 0.3]), ('1e-05,0.12345678901234567', [1e-5, 0.12345678901234567]), ('1,2.0', [1, 2.0]),
    ('True,False,None', [True, False, None]), ('true,none', [True, 'none']), ('a=b,c-d', ['a=b', 'c-d']),
    ('(1,2),[3,4],5', [(1, 2), [3, 4], 5]), ('s3://a/b.pth,http://c/d:1', ['s3://a/b.pth', 'http://c/d:1'])])
def test_a_list_arrives_exactly(text, arrives):
    parameter, = parse_space([f'model.x={text}'])
    got = [read_back(as_options({'model.x': choice}))['model.x'] for choice in parameter.choices]
    assert got == arrives and [type(value) for value in got] == [type(value) for value in arrives]
    assert all(isinstance(choice, str | int | float | None) for choice in parameter.choices)  # what Optuna stores


@pytest.mark.parametrize('value', [1 / 3, 5e-324, 2**60])
def test_a_drawn_number_arrives_to_the_last_digit(value):
    assert read_back(as_options({'a.b': value})) == {'a.b': value}


@pytest.mark.parametrize(('specs', 'message'), [
    (['lr'], 'must be KEY=LOW:HIGH'), (['lr=1,,2'], 'must be KEY'), (['lr=1:a'], 'must be KEY'),
    (['lr=1:2:3'], 'must be KEY'), (['lr=1:1'], 'must rise'), (['lr=0:1:log'], 'from above 0'),
    (['lr=1:2', 'optim_wrapper.optimizer.lr=1,2'], 'comes twice'), (['a=1,True'], 'has one twice')])
def test_bad_specification(specs, message):
    with pytest.raises(ValueError, match=message):
        parse_space(specs)


def config(**optim_wrapper):
    return Config(dict(model=dict(backbone=dict(num_prompts=5), name='x'), hooks=[dict(a=1)], seed=0,
                       optim_wrapper=dict(
        optimizer=dict(lr=0.1), paramwise_cfg=dict(),
        constructor='mmspt.TrainableOnlyOptimWrapperConstructor') | optim_wrapper))


@pytest.mark.parametrize('key', [*SHORT, 'model.backbone.anything', 'hooks.0.a', 'seed'])
def test_keys_with_a_place(key):
    check_keys(config(), parse_space([f'{key}=1,2']))


@pytest.mark.parametrize(('key', 'message'), [
    ('model.backbon.num_prompts', "no 'model.backbon' where 'model.backbon.num_prompts' would be"), ('lrr', "no 'lrr'"),
    ('hooks.1.a', "no 'hooks.1'")])
def test_keys_without_a_place(key, message):
    with pytest.raises(ValueError, match=message):
        check_keys(config(), parse_space([f'{key}=1,2']))


@pytest.mark.parametrize('constructor', ['DefaultOptimWrapperConstructor', None])
def test_the_heads_decay_needs_its_constructor(constructor):
    with pytest.raises(ValueError, match='leave it out of --search'):
        check_keys(config(constructor=constructor), parse_space(DEFAULT))


@pytest.mark.parametrize('key', ['val_evaluator.topk', 'train_dataloader.dataset', 'randomness.seed'])
def test_which_data_a_search_sees_is_not_varied(key):
    with pytest.raises(ValueError, match=rf"must not vary which data.*'{key}'"):
        check_keys(config(), parse_space([f'{key}=test.txt,val.txt']))


@pytest.mark.parametrize(('given', 'own', 'keys'), [
    (None, None, ['optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay',
                  'optim_wrapper.paramwise_cfg.head_decay']),
    (None, ['lr=1,2', 'hooks.0.a=3:4'], ['optim_wrapper.optimizer.lr', 'hooks.0.a']),
    (['seed=1,2'], 'not read', ['seed'])])
def test_a_config_may_bring_its_own_space(given, own, keys):
    assert [parameter.key for parameter in read_space(config(), given, own)] == keys


def test_own_space_that_is_no_list():
    with pytest.raises(ValueError, match=r"^search_space of mine.py must be a list of texts.*, got 'lr=1,2': correct"):
        read_space(Config(config().to_dict(), cfg_text='-', filename='mine.py'), None, 'lr=1,2')


def test_settings_for_people():
    assert describe({'optim_wrapper.optimizer.lr': 0.123456, 'a.num': 10}) == 'lr 0.123, a.num 10'
