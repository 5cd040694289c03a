#!/usr/bin/env python
"""Compute a config's initial prompts without training: the PromptInitHook of the config does it, and the run ends
there. ``initial_prompts.safetensors`` in the work directory can start other runs through ``mmspt.FileInit``."""
import argparse

from mmengine.config import Config

from mmspt.config import find_hook, read_config
from mmspt.engine.launch import build_runner, merge_training_args, parse_training_args, rename_config, shut_down

TRAINING_HOOKS = ('nmi', 'global_batch')
"""Default hooks that measure or describe a training."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compute initial prompts')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where initial_prompts.safetensors goes')
    parser.set_defaults(resume=None, no_validate=False, no_pin_memory=False, no_persistent_workers=True)
    return parse_training_args(parser)


def only_initialize(cfg: Config) -> Config:
    """Leave a run of no iteration, whose only custom hook fills the prompts."""
    hook = find_hook(cfg, 'PromptInitHook')
    if not hook:
        raise ValueError("the config must have custom_hooks=[dict(type='mmspt.PromptInitHook', ...)], which says how "
                         f'the prompts start; {cfg.filename} has none')
    cfg.custom_hooks = [hook]
    kept = {name: hook for name, hook in cfg.default_hooks.items() if name not in TRAINING_HOOKS}
    cfg.default_hooks = dict(kept, checkpoint=None)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=0)
    cfg.param_scheduler = None
    cfg.resume = False
    return rename_config(cfg, 'init_prompts')


def main() -> None:
    args = parse_args()
    build_runner(only_initialize(merge_training_args(read_config(args.config), args))).train()
    shut_down()


if __name__ == '__main__':
    main()
