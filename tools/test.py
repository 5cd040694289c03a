#!/usr/bin/env python
"""Test: the flags of MMPretrain's tools/test.py."""
import argparse
import os
from copy import deepcopy

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from mmspt.config import read_config
from mmspt.datasets.nested_configs import leaves
from mmspt.engine.launch import (
    add_hooks,
    add_launcher,
    build_runner,
    merge_options,
    rename_config,
    set_loader_defaults,
    set_work_dir,
    shut_down,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('--work-dir', help='where logs and metrics go')
    parser.add_argument('--out', help='file (.pkl, .json, .yml) for the results')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what --out holds; predictions by default')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision: float16, on a CPU bfloat16')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--interval', type=int, default=1, help='show every so many samples')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays')
    parser.add_argument('--no-pin-memory', action='store_true', help='pin_memory=False in the data loader')
    parser.add_argument('--tta', action='store_true', help='average over test-time augmentations; flips by default')
    add_launcher(parser)
    args = parser.parse_args()
    if args.out_item is not None and args.out is None:
        parser.error('--out-item says what --out holds: give --out FILE as well')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def use_tta(cfg: Config) -> None:
    """Wrap the model in the config's ``tta_model`` and the pipeline in its ``tta_pipeline``, or in flips."""
    datasets = list(leaves(cfg.test_dataloader.dataset))
    pipeline = datasets[0].pipeline
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1., 0.)]
        augment = dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])
        cfg.tta_pipeline = [*deepcopy(pipeline[:-1]), augment]
    tta_model = cfg.get('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
    cfg.model = ConfigDict(**tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Merge the command line into the config."""
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    add_hooks(cfg, class_names='ClassNamesHook')
    if args.show or args.show_dir is not None:
        cfg.default_hooks.setdefault('visualization', dict(type='VisualizationHook'))
        cfg.default_hooks.visualization.update(
            enable=True, show=args.show, wait_time=args.wait_time, out_dir=args.show_dir, interval=args.interval)
    merge_options(cfg, args.cfg_options)
    if args.tta:
        use_tta(cfg)
    set_loader_defaults(cfg, not args.no_pin_memory, persistent_workers=False)
    return cfg


def main() -> None:
    args = parse_args()
    cfg = merge_args(read_config(args.config), args)
    runner = build_runner(rename_config(cfg, 'test'), 'test')
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
    shut_down()


if __name__ == '__main__':
    main()
