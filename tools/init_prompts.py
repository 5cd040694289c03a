#!/usr/bin/env python
"""Compute a config's initial prompts without training: the PromptInitHook of the config does it, and the run ends
there. ``initial_prompts.safetensors`` in the work directory can start other runs through ``mmspt.FileInit``."""
import argparse
import os
import sys

from mmengine.config import Config, DictAction

from train import (
    add_amp,
    add_auto_scale_lr,
    build_runner,
    dump_as,
    name_amp,
    set_batch,
    set_loader_defaults,
    set_work_dir,
    shut_down,
    use_amp,
)

OF_TRAININGS = ('nmi', 'global_batch')  # default hooks that measure or describe one


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compute initial prompts')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where initial_prompts.safetensors goes')
    add_amp(parser)
    add_auto_scale_lr(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(name_amp(sys.argv[1:]))
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def only_initialize(cfg: Config) -> Config:
    """Leave a run of no iteration, whose only custom hook fills the prompts."""
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] == 'mmspt.PromptInitHook']
    if not hooks:
        raise ValueError("the config must have custom_hooks=[dict(type='mmspt.PromptInitHook', ...)], which says how "
                         f'the prompts start; {cfg.filename} has none')
    cfg.custom_hooks = hooks
    kept = {name: hook for name, hook in cfg.default_hooks.items() if name not in OF_TRAININGS}
    cfg.default_hooks = dict(kept, checkpoint=None)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=0)
    cfg.param_scheduler = None
    cfg.resume = False
    return dump_as(cfg, 'init_prompts')


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    if args.amp:
        use_amp(cfg, args.amp)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    set_batch(cfg, args)
    cfg = only_initialize(cfg)
    set_loader_defaults(cfg, pin_memory=True, persistent_workers=False)
    build_runner(cfg).train()
    shut_down()


if __name__ == '__main__':
    main()
