#!/usr/bin/env python
"""Keep a checkpoint's encoder alone, in half precision, as a safetensors file named as MMPretrain names weights."""
import argparse
import os

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

import mmspt  # noqa: F401  (its loader reads every layout, and unpickles nothing foreign)
from mmspt.models.weights import find_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a frozen backbone')
    parser.add_argument('checkpoint', help='path of a checkpoint in any known layout')
    parser.add_argument('out', help='path of the .safetensors file to write')
    parser.add_argument('--dtype', choices=['float16', 'bfloat16', 'float32'], default='float16')
    args = parser.parse_args()
    encoder = find_encoder(CheckpointLoader.load_checkpoint(args.checkpoint, map_location='cpu', logger='silent'))
    if encoder is None:
        parser.error(f'{args.checkpoint} holds no ViT in a known layout (mmspt/models/weights.py lists them)')
    weights = {key: value.to(getattr(torch, args.dtype)).contiguous() for key, value in encoder.items()}
    save_file(weights, f'{args.out}.tmp')
    os.replace(f'{args.out}.tmp', args.out)


if __name__ == '__main__':
    main()
