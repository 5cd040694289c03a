#!/usr/bin/env python
"""What prompts cost in a step of a ViT: as keys and values, by concatenation, and beside full fine-tuning.

    python benchmarks/step.py                                        # ViT-B/16, batch 8, all cases
    python benchmarks/step.py --prompts 20 100 --dtypes float32      # the targets
    python benchmarks/step.py --device cuda --batch-size 128 --dtypes bfloat16 --compile

Variants and precisions run by turns in one process; a ratio is the median of the rounds' ratios. 'no prompts' is
MMPretrain's own frozen ViT with a trained head, the gradient carried back to the input of block 1, as deep prompts need
it; 'no prompts (short end)' is the same with a last block that computes no more than is read, as ours does. 'gated' is
GateVPT; 'gated (written out)' its released form, with attention in single steps and all tokens through the last block.
'bilinear' is BPT-Deep, its rank the number of prompts; bases train in the last third of the blocks.
"""
import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from rich.console import Console
from torch import Tensor

from measure import alternate, arguments, peak_of_tensors, ratio, record, show_table
from mmspt.models import GatedPromptedViT
from networks import CLASSES, OUTPUTS, build_classifier

NONE, SHORT, FULL = 'no prompts', 'no prompts (short end)', 'full fine-tuning'
TOLERANCE = dict(float32=1e-4, bfloat16=0.1, float16=0.05)  # of outputs and gradients, relative to the largest
PATHS = dict(deep=('keys and values', 'concatenation'), shallow=('shallow', ), gated=('gated', 'gated (written out)'),
             bilinear=('bilinear', ))
OVER = {'concatenation': 'keys and values', 'bilinear': 'keys and values', 'gated': 'shallow',
        'gated (written out)': 'gated'}
"""Path -> what its time is a multiple of, with as many prompts."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = arguments('Time a step', 'step')
    parser.add_argument('--outputs', nargs='+', default=['mae', 'mocov3'], choices=list(OUTPUTS),
                        help='what feeds the head: the mean of all tokens (mae), or CLS (mocov3)')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--prompts', nargs='+', type=int, default=[10, 20, 50, 100, 200])
    parser.add_argument('--types', nargs='+', default=list(PATHS), choices=list(PATHS))
    parser.add_argument('--references', nargs='+', default=[NONE, SHORT, FULL], choices=[NONE, SHORT, FULL],
                        help=f"networks without prompts to compare with; '{NONE}' is always there")
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'],
                        choices=['float32', 'bfloat16', 'float16'], help='below float32: autocast')
    parser.add_argument('--passes', nargs='+', default=['step', 'forward'], choices=['step', 'forward'],
                        help='step: forward and backward while training; forward: eval mode, no gradient')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--calls', type=int, help='calls in one measurement; by default 1 on a CPU, 20 on a GPU')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--compile', nargs='?', const='inductor', metavar='BACKEND', help='torch.compile the backbone')
    return parser.parse_args(argv)


@MODELS.register_module()
class WrittenOutGates(GatedPromptedViT):
    """The released code's way (ryongithub/GatedPromptTuning at a9200bb), on the same weights."""

    def forward(self, x: Tensor, prompts: Any = None) -> tuple[Tensor, ...]:
        """Compute features."""
        (tokens, scales, gates), (x, _, _) = self.get_submodule('prompts')(), self._embed(x)
        end = 1 + self.num_prompts
        x = torch.cat((x[:, :1], tokens.expand(len(x), -1, -1), x[:, 1:]), dim=1)
        for layer, scale, gate in zip(self.layers, scales, [*gates, None], strict=True):
            prompts, attn = x[:, 1:end], layer.attn
            qkv = attn.qkv(layer.ln1(x)).unflatten(-1, (3, attn.num_heads, attn.head_dims)).permute(2, 0, 3, 1, 4)
            query, key, value = qkv.unbind(0)
            weights = (query @ key.transpose(-2, -1) * attn.head_dims**-0.5 * scale).softmax(dim=-1)
            x = x + attn.proj((weights @ value).transpose(1, 2).flatten(2))
            x = layer.ffn(layer.ln2(x), identity=x)
            if gate is not None:
                x = torch.cat((x[:, :1], gate * x[:, 1:end] + (1 - gate) * prompts, x[:, end:]), dim=1)
        return (self.ln2(x[:, 1:].mean(dim=1)), ) if self.out_type == 'avg_featmap' else (self.ln1(x)[:, 0], )


def build(args: argparse.Namespace, outputs: str, **kwargs: Any) -> ImageClassifier:
    """Build a classifier, compiled if that is asked for."""
    model = build_classifier(args, outputs, **kwargs)
    if args.compile:
        for name in ('cache_size_limit', 'recompile_limit'):  # of dynamo: each variant is compiled on its own
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, 1000)
        for module in model.modules():
            if isinstance(module, DropPath):
                module.drop_prob = float(module.drop_prob)  # MMPretrain's NumPy scalar would break the stock graph
        model.backbone.forward = torch.compile(model.backbone.forward, backend=args.compile)
    return model


def build_variants(args: argparse.Namespace, outputs: str, training: bool) -> Iterator[tuple[str, ImageClassifier]]:
    """Yield names and models."""
    for name in (NONE, SHORT):
        if name not in (NONE, *args.references):
            continue
        own = {} if name == NONE else dict(num_prompts=0, allow_random_backbone=True)
        model = build(args, outputs, type='mmspt.PromptedViT' if own else 'VisionTransformer', **own)
        model.backbone.requires_grad_(False)
        model.get_parameter('backbone.pos_embed').requires_grad_(True)  # added to the input of block 1
        model.backbone.shortened = name == SHORT
        yield name, model
    if training and FULL in args.references:
        yield FULL, build(args, outputs, type='VisionTransformer')
    for prompt_type in args.types:
        for path, count in product(PATHS[prompt_type], args.prompts):
            kinds: dict[str, dict[str, Any]] = dict(
                gated=dict(type='WrittenOutGates' if 'written' in path else 'mmspt.GatedPromptedViT'),
                bilinear=dict(prompts=dict(type='mmspt.DeepBilinearPrompts', rank=count)))
            kind = dict(type='mmspt.PromptedViT') | kinds.get(prompt_type, dict(prompt_type=prompt_type))
            yield f'{path}, {count}', build(args, outputs, num_prompts=count, concatenate=path == 'concatenation',
                                            allow_random_backbone=True, **kind)


def work(model: ImageClassifier, training: bool, images: Tensor, samples: list[DataSample],
         precision: Callable[[], AbstractContextManager]) -> None:
    """Run one step, or one forward pass."""
    if training:
        model.zero_grad(set_to_none=True)
        with precision():
            loss = model(images, samples, mode='loss')['loss']
        loss.backward()
    else:
        with torch.no_grad(), precision():
            model(images)


def largest_difference(models: dict[str, ImageClassifier], images: Tensor, samples: list[DataSample],
                       precision: Callable[[], AbstractContextManager], counts: list[int]) -> float:
    """Return the relative difference of two paths' scores and prompts' gradients; NaN without such a pair."""
    differences = []
    for count, paths in product(counts, (PATHS['deep'], PATHS['gated'])):
        pair = [models[name] for name in (f'{path}, {count}' for path in paths) if name in models]
        if len(pair) < 2:
            continue
        found = []
        for model in pair:
            with precision():
                scores = model(images).detach()  # lets go of what a backward pass would need
                loss = model(images, samples, mode='loss')['loss']
            prompts = model.get_parameter('backbone.prompts.tokens')
            found.append((scores.float(), torch.autograd.grad(loss, prompts)[0]))
        differences += [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True)]
    return max(differences, key=lambda value: math.inf if math.isnan(value) else value, default=math.nan)


def measure_cases(args: argparse.Namespace, outputs: str, kind: str) -> list[dict[str, Any]]:
    """Time all variants in all precisions; one case for each precision. A variant that fails has its error instead."""
    device, training = torch.device(args.device), kind == 'step'
    torch.manual_seed(1)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=device)
    samples = [DataSample().set_gt_label(int(label)).to(device)
               for label in torch.randint(CLASSES, (args.batch_size, ))]
    models = {}
    for name, model in build_variants(args, outputs, training):
        model.train(training)
        models[name] = model
    precisions: dict[str, Callable[[], AbstractContextManager]] = {
        dtype: nullcontext if dtype == 'float32' else partial(torch.autocast, device.type, getattr(torch, dtype))
        for dtype in args.dtypes}
    variants = {(dtype, name): partial(work, model, training, images, samples, precision)
                for dtype, precision in precisions.items() for name, model in models.items()}
    calls = args.calls or (20 if device.type == 'cuda' else 1)
    failed: dict[tuple[str, str], str] = {}
    seconds = alternate(variants, args.rounds, device, calls, f'{outputs}, {kind}', failed)
    memory = {}
    for key in seconds:
        call = variants[key]
        models[key[1]].zero_grad(set_to_none=True)
        memory[key] = peak_of_tensors(call, device)
        models[key[1]].zero_grad(set_to_none=True)

    cases = []
    for dtype, precision in precisions.items():
        working = {name: model for name, model in models.items() if (dtype, name) in seconds}
        difference = largest_difference(working, images, samples, precision, args.prompts)
        rows: dict[str, Any] = {name: dict(error=failed[dtype, name]) for name in models if name not in working}
        for name in working:
            times = seconds[dtype, name]
            rows[name] = dict(median=statistics.median(times), seconds=times, peak_bytes=memory[dtype, name])
            if NONE in working:
                rows[name]['over_none'] = ratio(times, seconds[dtype, NONE])
            path, _, count = name.partition(', ')
            other = f'{OVER.get(path)}, {count}'
            if other in working:
                rows[name][f'over_{OVER[path].replace(" and ", "_")}'] = ratio(times, seconds[dtype, other])
            method = getattr(models[name].backbone, 'prompts', None)  # prompts, gates and temperatures; not the head
            rows[name]['tuned'] = 0 if method is None else sum(
                p.numel() for p in method.parameters() if p.requires_grad)
            if dtype != 'float32' and ('float32', name) in seconds:
                rows[name]['over_float32'] = ratio(times, seconds['float32', name])
        cases.append(dict(outputs=outputs, dtype=dtype, kind=kind, variants=rows,
                          difference=None if math.isnan(difference) else difference))
    return cases


def check(case: dict[str, Any]) -> None:
    """Raise RuntimeError if two paths to the same numbers lead to others."""
    if (case['difference'] or 0) > TOLERANCE[case['dtype']]:
        raise RuntimeError(f'both paths must do the same work, but differ by {case["difference"]:.1e} in '
                           f'{case["dtype"]}: the times mean nothing')


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Time all kinds of output and passes."""
    cases = []
    for outputs, kind in product(args.outputs, args.passes):
        cases += measure_cases(args, outputs, kind)
        for case in cases:
            check(case)
    return dict(cases=cases)


def show(content: dict[str, Any], console: Console) -> None:
    """Print a table for each case."""
    ratios = dict(over_none='/ no prompts', over_keys_values='/ keys and values', over_shallow='/ shallow',
                  over_gated='/ gated', over_float32='/ fp32')
    for case in content['cases']:
        columns = {key: text for key, text in ratios.items() if any(key in row for row in case['variants'].values())}
        show_table(console, ('variant', 'ms', *columns.values(), 'peak MiB'), [
            (name, f'{row["median"] * 1e3:.1f}', *(f'{row[key]:.3f}' if key in row else '' for key in columns),
             f'{row["peak_bytes"] / 2**20:,.0f}') for name, row in case['variants'].items() if 'error' not in row],
            f'{case["outputs"]}, {case["dtype"]}, {case["kind"]}')
        for name, row in case['variants'].items():
            if 'error' in row:
                console.print(f'{name}: {row["error"]}')
        if case['difference'] is not None:
            console.print('two paths to the same numbers: scores and gradients of the prompts differ by at most '
                          f'{case["difference"]:.1e}, relative')


if __name__ == '__main__':
    record(parse_args(), measure, show)
