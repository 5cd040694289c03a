"""What the tools that start MMEngine's runner share: flags, the config that they make, and the runner."""
import argparse
import inspect
import os
import os.path as osp
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from mmspt.config import type_name
from mmspt.datasets.nested_configs import skip_bad_images
from mmspt.evaluation.method_names import is_prompted
from mmspt.models.weights.loading import arguments_of, has_sizes
from mmspt.models.weights.normalization import compare_normalization, fill_normalization

from .checks import check_config
from .global_batch import keep_global_batch
from .model import find_prompted_vit
from .optimizers import warn_of_slow_bfloat16
from .start import init_cpu_distributed, prepare_process

DTYPES = ('bfloat16', 'float16')
FIELDS = list(inspect.signature(Runner).parameters)


def add_amp(parser: argparse.ArgumentParser) -> None:
    """Add ``--amp [DTYPE]``; the command line goes through :func:`name_amp` first."""
    parser.add_argument('--amp', nargs='?', const=DTYPES[0], choices=DTYPES,
                        help='automatic mixed precision: bfloat16 if none is named; float16 needs a GPU')


def name_amp(argv: list[str]) -> list[str]:
    """Name the data type of a bare ``--amp``, for which argparse would take the config that follows."""
    following = [*argv[1:], '']
    return [f'{arg}={DTYPES[0]}' if arg == '--amp' and after not in DTYPES else arg
            for arg, after in zip(argv, following, strict=True)]


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, ``--launcher`` and ``--local-rank``."""
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes --local-rank, torchrun sets LOCAL_RANK
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def parse_training_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the flags that change a training's config, and read the command line."""
    add_amp(parser)
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='do not divide the batch among processes, scale the rate by the global batch')
    add_launcher(parser)
    args = parser.parse_args(name_amp(sys.argv[1:]))
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def merge_training_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Merge a training's command line into its config, ``--cfg-options`` last.

    Raises:
        ValueError: See :func:`use_amp` and :func:`set_batch`.
    """
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        use_amp(cfg, args.amp)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    merge_options(cfg, args.cfg_options)
    set_batch(cfg, args)
    add_hooks(cfg, resume='ResumeHook', global_batch='GlobalBatchHook', class_names='ClassNamesHook',
              metrics='MetricsHook', data_time='DataTimeHook')
    set_loader_defaults(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Merge ``--cfg-options``. ValueError: a misspelt variable, which nobody would read."""
    for key, near in misspelt(options or {}, [*cfg, *FIELDS]):
        raise ValueError(f"--cfg-options must set what is read, but nothing reads '{key}': write {near}")
    before = cfg.get('workers')
    cfg.merge_from_dict(dict(options or {}))
    if before is not None and 'workers' in (options or {}):
        set_workers(cfg, before, cfg.workers)


def set_workers(cfg: Config, before: int, workers: int) -> None:
    """Change the workers of the data loaders that have as many as the recipes give them."""
    cfg.workers = workers
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if (cfg.get(field) or {}).get('num_workers') == before:
            cfg[field].num_workers = workers


def misspelt(keys: Iterable[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys of a config whose variable is almost a known one, and that one."""
    for key in keys:
        near = get_close_matches(key.partition('.')[0], known, 1, 0.85)
        if near and key.partition('.')[0] not in known and not key.startswith('_'):
            yield key, near[0]


def add_hooks(cfg: Config, **hooks: str) -> None:
    """Add default hooks of ours, by name and type, that MMPretrain's default runtime lacks."""
    cfg.default_hooks = cfg.get('default_hooks') or ConfigDict()
    for name, kind in hooks.items():
        cfg.default_hooks.setdefault(name, ConfigDict(type=f'mmspt.{kind}'))


def default_work_dir(config: str) -> str:
    """Name a run's folder after its config; below `configs/` with the folder's name, since spt/, vpt/, linear/ and
    finetune/ have recipes of one name."""
    path = osp.splitext(osp.abspath(config))[0]
    folder, name = osp.split(path)
    inside = osp.basename(osp.dirname(folder)) == 'configs'
    return osp.join('work_dirs', osp.basename(folder) if inside else '', name)


def set_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """Take the work directory from the command line, else the config, else name it by :func:`default_work_dir`."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = default_work_dir(args.config)


def set_batch(cfg: Config, args: argparse.Namespace) -> None:
    """Let MMEngine scale the rate if ``--auto-scale-lr`` says so, else divide the batch among the processes.

    Raises:
        ValueError: The config does not say which batch its rate was chosen for, or the processes do not divide it.
    """
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ValueError('--auto-scale-lr needs the batch that the rate was chosen for, but the config has no '
                             'auto_scale_lr.base_batch_size: add auto_scale_lr = dict(base_batch_size=N)')
        cfg.auto_scale_lr.enable = True
    keep_global_batch(cfg, batch_given='train_dataloader.batch_size' in (args.cfg_options or {}))


def use_amp(cfg: Config, dtype: str) -> None:
    """Let the run train in mixed precision; ``loss_scale`` of the config stays.

    Raises:
        ValueError: ``optim_wrapper.type`` is neither OptimWrapper nor AmpOptimWrapper.
    """
    kind = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, got {kind}: change it, or '
                         'leave --amp out')
    cfg.optim_wrapper.type = 'mmspt.AmpOptimWrapper'
    cfg.optim_wrapper.dtype = dtype


def set_loader_defaults(cfg: Config, pin_memory: bool, persistent_workers: bool) -> None:
    """Set the loader defaults of MMPretrain's tools; persistent workers only where there are workers."""
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(field)
        if loader is None:
            continue
        loader.setdefault('pin_memory', pin_memory and torch.cuda.is_available())
        loader.setdefault('persistent_workers', persistent_workers and loader.get('num_workers', 0) > 0)
        loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        if isinstance(loader.collate_fn, dict):
            loader.collate_fn.pop('_scope_', None)  # of an inherited loader; MMEngine would pass it to the function
        loader.pin_memory &= pin_memory
        loader.persistent_workers &= persistent_workers and loader.get('num_workers', 0) > 0


def rename_config(cfg: Config, ending: str) -> Config:
    """Let the runner write the config into the work directory as ``NAME_<ending>.py``, not as a training's."""
    stem = osp.splitext(osp.basename(cfg.filename))[0]
    return Config(cfg.to_dict(), cfg_text=cfg.pretty_text, filename=f'{stem}_{ending}.py')


def build_runner(cfg: Config, phase: str = 'train') -> Runner:
    """Check the config, let the data sets skip bad images if it says so, start gloo where it is needed, build."""
    prepare_process()
    name_backbone(cfg)
    check_config(cfg, phase)
    skip_bad_images(cfg)
    init_cpu_distributed(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if any((cfg.get(loop) or {}).get('fp16') for loop in ('val_cfg', 'test_cfg')):
        warn_of_slow_bfloat16()
    for key, near in misspelt(cfg, FIELDS):
        runner.logger.warning(f"The runner does not read the config's variable '{key}': write {near} if that is meant")
    warn_of_normalization(runner.model, cfg)
    if cfg.get('data_preprocessor') and cfg.model.get('data_preprocessor'):
        runner.logger.warning('model.data_preprocessor acts, and data_preprocessor of the config does not: '
                              'leave one of them out')
    return runner


def name_backbone(cfg: Config) -> None:
    """Write into the config what a backbone without ``arch`` reads from its checkpoint, for logs, results and packs,
    and the mean and std that our classifier reads with it.

    Raises:
        OSError, RuntimeError, ValueError: See :func:`mmspt.models.weights.loading.arguments_of`.
    """
    model = _classifier_of(cfg)
    backbone = model.get('backbone')
    if not isinstance(backbone, dict) or not is_prompted(backbone) or has_sizes(backbone.get('arch')):
        return
    backbone.update(arguments_of(backbone.get('init_cfg'), backbone))
    ours = str(model.get('type')).endswith('mmspt.ImageClassifier') or (
        model.get('_scope_') == 'mmspt' and model.get('type') == 'ImageClassifier')
    if ours and has_sizes(backbone.get('arch')):
        place: Any = model if model.get('data_preprocessor') else cfg
        place['data_preprocessor'] = fill_normalization(
            place.get('data_preprocessor') or {}, backbone, backbone['arch']['embed_dims'],
            bool(backbone.get('pre_norm')), backbone.get('in_channels', 3))


def warn_of_normalization(model: nn.Module, cfg: Config) -> None:
    """Warn on the main process where images are normalized otherwise than the checkpoint's publisher says."""
    config, vit = _classifier_of(cfg), find_prompted_vit(model)
    if vit is None or not isinstance(config.get('backbone'), dict) or not dist.is_main_process():
        return
    compare_normalization(config.get('data_preprocessor') or cfg.get('data_preprocessor') or {}, config['backbone'],
                          vit.embed_dims, hasattr(vit.pre_norm, 'weight'))


def _classifier_of(cfg: Config) -> dict[str, Any]:
    """Return the config's model, inside that of test-time augmentation."""
    model = cfg.get('model') or {}
    return model.get('module') or model


def shut_down() -> None:
    """Leave the process group together: a rank that leaves first can break gloo for the others."""
    if dist.is_distributed():
        dist.barrier()
        torch.distributed.destroy_process_group()
