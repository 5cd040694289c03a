#!/usr/bin/env python
"""Export a tuned model for other programs: ONNX or torch.export's .pt2, its prompts folded into constants. What was
written is compared with PyTorch; docs/export.md says what goes in and comes out."""
import argparse
import sys
from typing import cast

from mmengine.config import DictAction
from rich.console import Console

from mmspt.config import read_config
from mmspt.engine.build import load_model
from mmspt.engine.model import check_linear_classifier
from mmspt.engine.start import prepare_process
from mmspt.models import PromptedViT
from mmspt.packs.preprocessing import image_size
from mmspt.serving.export import export, find_kind

WIDTH = 200  # columns where the output is no terminal


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Export a tuned model')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('out', help='path of the file to write; .onnx or .pt2 tells the format')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_process()
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    try:
        find_kind(args.out)
        cfg = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        model, meta = load_model(cfg, args.checkpoint)
        classes = (meta.get('dataset_meta') or {}).get('classes')
        with console.status('') as status:
            check_linear_classifier(model)
            height, width = image_size(cfg, cast(PromptedViT, model.backbone).img_size)
            written = export(model, args.out, classes, status.update, (height, width))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'export: {error}') from error
    console.print(f'{args.checkpoint} -> {", ".join(written.paths)}', soft_wrap=True)
    console.print(f'{written.num_bytes:,} bytes; for images of {height} x {width} pixels (height x width); '
                  f'greatest difference from PyTorch {written.difference:.1e}')


if __name__ == '__main__':
    main()
