#!/usr/bin/env python
"""Train: the flags of MMPretrain's tools/train.py, and three things more: it looks at folders and the work directory
before anything is built, ``--launcher pytorch`` works without a GPU, and ``--amp`` takes a data type."""
import argparse

from mmspt.config import read_config
from mmspt.engine.launch import build_runner, merge_training_args, parse_training_args, shut_down
from mmspt.engine.reliability.disk import explain_disk_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where logs, checkpoints and initial prompts go')
    parser.add_argument('--resume', nargs='?', type=str, const='auto',
                        help='go on from a checkpoint: the one named, or the latest in the work directory')
    parser.add_argument('--no-validate', action='store_true', help='no validation while training')
    parser.add_argument('--no-pin-memory', action='store_true', help='pin_memory=False in the data loaders')
    parser.add_argument('--no-persistent-workers', action='store_true',
                        help='persistent_workers=False in the data loaders')
    return parse_training_args(parser)


def main() -> None:
    args = parse_args()
    cfg = merge_training_args(read_config(args.config), args)
    with explain_disk_errors(cfg.work_dir):
        build_runner(cfg).train()
    shut_down()


if __name__ == '__main__':
    main()
