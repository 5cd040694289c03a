"""Hooks and types of a config, by the name of their class."""
from mmengine.config import Config

from mmspt.config import find_hook, type_name
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
