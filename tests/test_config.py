"""Hooks and types of a config, by the name of their class."""
from mmengine.config import Config

from mmspt.config import find_hook, read_config, type_name
from mmspt.engine.hooks import PromptInitHook


def test_find_hook():
    cfg = Config(dict(default_hooks=dict(checkpoint=None, nmi=dict(type='mmspt.PromptNMIHook', interval=7)),
                      custom_hooks=[dict(type='EMAHook'), dict(type='PromptInitHook', num_images=3)]))
    assert find_hook(cfg, 'PromptNMIHook')['interval'] == 7
    assert find_hook(cfg, 'PromptInitHook')['num_images'] == 3
    assert find_hook(cfg, 'InitHook') == {} == find_hook({}, 'PromptInitHook')


def test_type_name():
    assert [type_name(kind) for kind in ('mmspt.PromptInitHook', PromptInitHook, None)] == [
        'PromptInitHook', 'PromptInitHook', 'unknown']


def test_numbers_that_yaml_takes_for_text(tmp_path):
    path = tmp_path / 'job.yaml'
    path.write_text('lr: 1e-3\nbetas: [9E-1, .5e+0]\nmodel: {eps: -2.e2, arch: vit-1e}\nname: e-3\n')
    assert read_config(str(path)).to_dict() == dict(
        lr=0.001, betas=[0.9, 0.5], model=dict(eps=-200., arch='vit-1e'), name='e-3')
