#!/usr/bin/env python
"""What VIPAMIN makes of real weights: how long its parts are, and how much of their values attention already spans.

    python benchmarks/vipamin.py                              # this repository's MAE of digits
    python benchmarks/vipamin.py --config configs/vipamin/vit-b_mae_cub.py

The in-span share of a vector is the length of its projection onto the rows of O (attention's outputs before the
projection, mean over images) over its own length: 0 for a value that attention cannot put out, about
sqrt((n + N_e) / D) for a random one. Values are taken as the method's algebra has them, W_V p + b_V, and as the network
makes them, W_V LN(p) + b_V.
"""
import argparse
import os.path as osp
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from rich.console import Console
from torch import Tensor

from measure import ROOT, arguments, record, show_table
from mmspt.engine.build import build_model
from mmspt.engine.training_images import TrainingImages
from mmspt.models import PromptedViT
from mmspt.prompts import VIPAMINInit
from mmspt.prompts.initializers import draw_uniform
from mmspt.prompts.vipamin import Attended, BlockMeans

COLUMNS = dict(norm='norm', share='in-span share', share_in_network='the same behind LN')


def parse_args() -> argparse.Namespace:
    parser = arguments("Look at VIPAMIN's parts", 'vipamin', network=False)
    parser.add_argument('--config', default=osp.join('configs', 'vipamin', 'vit-xs_mae_digits.py'))
    parser.add_argument('--k', type=int, default=32)
    parser.add_argument('--num-images', type=int, default=VIPAMINInit.images)
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def read_blocks(args: argparse.Namespace) -> tuple[PromptedViT, list[BlockMeans], int]:
    """Return the backbone, the means of its blocks that VIPAMIN reads, and the number of images."""
    cfg = Config.fromfile(args.config if osp.exists(args.config) else osp.join(ROOT, args.config))
    model = build_model(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    model.init_weights()
    vit = model.eval().backbone
    vit.check_weights()
    images = TrainingImages(dataset, model.data_preprocessor, args.num_images, 32, seed=args.seed, name='VIPAMIN')
    return vit, VIPAMINInit(k=args.k, lam=0.5).read_blocks(vit, images), images.wanted


def in_span(values: Tensor, outputs: Tensor) -> float:
    """Mean over vectors (N, D) of the share that lies in the span of rows (n, D)."""
    basis = torch.linalg.qr(outputs.double().T).Q
    values = values.double()
    return float(((values @ basis).norm(dim=1) / values.norm(dim=1)).mean())


def look(vit: PromptedViT, blocks: list[BlockMeans], k: int, seed: int) -> list[dict[str, Any]]:
    """For each block, norm and in-span shares of every part."""
    assert vit.prompts is not None
    shape, rows = tuple(vit.prompts.shape), []
    parts = {'matched patches': VIPAMINInit(k=k, lam=0.), 'orthogonal, exact': VIPAMINInit(lam=1.),
             'orthogonal, released': VIPAMINInit(lam=1., orthogonal='released'),
             'half of each, exact': VIPAMINInit(k=k, lam=0.5)}
    bound = vit.prompts.bound
    made = {name: part.mix(blocks, shape, bound, torch.Generator().manual_seed(seed)) for name, part in parts.items()}
    made['uniform'] = draw_uniform(shape, bound, torch.Generator().manual_seed(seed))
    for i, (layer, block) in enumerate(zip(vit.layers, blocks, strict=False)):
        assert isinstance(block.attended, Attended)
        outputs, weight, bias = (tensor.detach().double() for tensor in block.attended)
        for name, prompts in made.items():
            own = prompts[i].double()
            with torch.no_grad():
                normed = layer.ln1(prompts[i]).double()
            rows.append(dict(block=i + 1, part=name, norm=float(own.norm(dim=1).mean()),
                             share=in_span(own @ weight.T + bias, outputs),
                             share_in_network=in_span(normed @ weight.T + bias, outputs)))
    return rows


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Look at every part in every block."""
    vit, blocks, num_images = read_blocks(args)
    return dict(images=num_images, rows=look(vit, blocks, args.k, args.seed))


def show(content: dict[str, Any], console: Console) -> None:
    """Print the first, a middle and the last block."""
    last = max(row['block'] for row in content['rows'])
    show_table(console, ('prompts', 'block', *COLUMNS.values()), [
        (row['part'], str(row['block']), *(f'{row[key]:.3g}' for key in COLUMNS))
        for row in content['rows'] if row['block'] in (1, (1 + last) // 2, last)], 'parts of VIPAMIN')


if __name__ == '__main__':
    record(parse_args(), measure, show)
