#!/usr/bin/env python
"""Keep a checkpoint's encoder alone, in half precision, as a safetensors file named as MMPretrain names weights."""
import argparse

import torch
from safetensors.torch import save

from mmspt.checkpoint_loaders import load_file
from mmspt.engine.start import prepare_process
from mmspt.files import write_bytes
from mmspt.models.weights.layouts import find_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a frozen backbone')
    parser.add_argument('checkpoint', help='path of a checkpoint in any known layout')
    parser.add_argument('out', help='path of the .safetensors file to write')
    parser.add_argument('--dtype', choices=['float16', 'bfloat16', 'float32'], default='float16')
    args = parser.parse_args()
    prepare_process()
    encoder = find_encoder(load_file(args.checkpoint))
    if encoder is None:
        parser.error(f'{args.checkpoint} holds no ViT in a known layout (mmspt/models/weights/layouts.py lists them)')
    weights = {key: value.to(getattr(torch, args.dtype)).contiguous() for key, value in encoder.items()}
    write_bytes(args.out, save(weights))


if __name__ == '__main__':
    main()
