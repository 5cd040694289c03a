"""Describe a run from its config: the row and the column of the paper's tables for its result."""
import os.path as osp
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmpretrain.models import VisionTransformer
from torch import nn

from mmspt.config import find_hook, name_classes, type_name
from mmspt.datasets.nested_configs import leaves, without_skipping
from mmspt.datasets.tasks import TASKS, task_of
from mmspt.hub import is_address

from .method_names import added_by, count_prompts, is_frozen_vit, is_prompted, name_prompts

ARCHS = VisionTransformer.arch_zoo | {name: dict(num_layers=12) for name in ('mocov3-s', 'mocov3-small')}
FAMILIES = {'': 'ViT', 'deit': 'DeiT', 'dinov2': 'DINOv2', 'eva': 'EVA', 'mocov3': 'MoCo-v3'}
SOURCE = ('type', 'data_root', 'ann_file', 'data_prefix', 'split', 'task')  # keys that say which images are read
EMBEDDING = re.compile(r'patch_embed\.|pos_embed$|cls_token$|register_tokens$')
"""Weights that are fixed in MoCo-v3's full fine-tuning, too."""
WEIGHTS = ('checkpoint', 'pretrained', 'load_from')
SAME = {'mmspt.ImageClassifier': 'ImageClassifier', 'mmspt.PackInputs': 'PackInputs', 'mmspt.Resize': 'Resize',
        'mmspt.ResizeEdge': 'ResizeEdge', 'mmspt.RandomResizedCrop': 'RandomResizedCrop'}
"""Classes that do what those of earlier recipes do (the first with an explicit backbone)."""
CACHE = ('cache', 'cache_gib', 'cache_folder')
"""Arguments of mmspt.LoadImageFromFile that change no pixel."""
ANYBODYS = re.compile(r'((pytorch|model|checkpoint|best|last|latest|epoch|iter|weights|teacher)[-_.\d]*)+\.\w+(\.tar)?')
"""Names of files, such as model.safetensors and epoch_300.pth, that do not tell whose weights they hold."""


def describe_run(cfg: Mapping[str, Any], trained: bool = True, world_size: int = 1,
                 model: nn.Module | None = None) -> dict[str, Any]:
    """Return the fields of :class:`mmspt.evaluation.Result` that a config tells, 'config' to 'recipe' without
    'num_images'; missing parts of the config become None or 'unknown', never an error.

    Args:
        cfg (Mapping): Its ``filename``, if it has one, gives the recipe's name, and its variable ``pretraining`` the
            backbone's ('MAE', 'MoCo-v3', 'supervised', ...).
        trained (bool): Whether the config trained the weights; a test does not know their training data.
        world_size (int): Number of processes, each with a batch of its own.
        model (nn.Module | None): The classifier that the config built: which of its parameters train names the method
            of a backbone that is not one of ours. Defaults to None.
    """
    cfg, filename = name_classes(cfg), getattr(cfg, 'filename', None)
    outer = cfg.get('model') or {}
    inner = outer.get('module') or outer  # test-time augmentation wraps the classifier
    backbone = inner.get('backbone') or {}
    test, train = (list(leaves((cfg.get(field) or {}).get('dataset') or {}))
                   for field in ('test_dataloader', 'train_dataloader'))
    head = inner.get('head')
    classes = head.get('num_classes') if isinstance(head, Mapping) else None
    tasks = [identify(dataset, classes) for dataset in test]
    num_prompts = count_prompts(backbone)
    hook = find_hook(cfg, 'PromptInitHook')
    start = hook.get('initializer') or dict(type='RandomSampleInit' if hook else 'UniformInit')  # the backbone's own
    initializer = type_name(start.get('type')) if num_prompts and is_prompted(backbone) else None
    return dict(
        config=config_name(filename),
        task=_joined(task for task, _ in tasks),
        group=tasks[0][1] if len(tasks) == 1 else 'Other',
        split=_joined(map(split_of, test)),
        trained_on=_trained_on(train, test) if trained else None,
        method=method_of(backbone, initializer, getattr(model, 'backbone', None)),
        initializer=initializer,
        num_prompts=num_prompts,
        arch=arch_of(backbone),
        pretraining=cfg.get('pretraining') or 'unknown',
        tta=inner is not outer,
        recipe=recipe_of(cfg, world_size) if trained else None)


def config_name(filename: str | None) -> str | None:
    """The file's name without ending and the ``_test`` that tools/test.py adds."""
    return None if filename is None else osp.splitext(osp.basename(filename))[0].removesuffix('_test')


def identify(dataset: Mapping[str, Any], num_classes: int | None = None) -> tuple[str, str]:
    """Task and group of a data set config: a key of ``TASKS`` and its group; '<key>, <n> classes' and 'Other' for a
    head with fewer classes than the task has; '<type> <folder>' and 'Other' for other data sets."""
    key = task_of(dataset)
    if key is not None:
        part = num_classes is not None and num_classes < TASKS[key].num_classes
        return (f'{key}, {num_classes} classes', 'Other') if part else (key, TASKS[key].group)
    folder = osp.basename(osp.normpath(dataset.get('data_root') or ''))
    return ' '.join(part for part in (type_name(dataset.get('type')), folder) if part not in ('', '.')), 'Other'


def split_of(dataset: Mapping[str, Any]) -> str | None:
    """The part of a data set that a config reads: its split, or its list file, or its folder; None if unsaid."""
    prefix = dataset.get('data_prefix')
    prefix = prefix.get('img_path') if isinstance(prefix, Mapping) else prefix
    return dataset.get('split') or dataset.get('ann_file') or prefix or None


def method_of(backbone: Mapping[str, Any], initializer: str | None, built: nn.Module | None = None) -> str:
    """Name the method by its prompts (:func:`.name_prompts`), without prompts by what of the backbone is trained: in
    the built one, if it is given; a class that trains parts which its config does not name gives its own name."""
    if is_prompted(backbone) and count_prompts(backbone):
        tuned, added = not backbone.get('frozen', True), added_by(backbone)
        name = name_prompts(backbone, str(initializer))
        return f'{name}, backbone tuned' if tuned else f'{name}, {added}' if added else name
    said = _said_method(backbone)
    if built is None or not list(built.parameters()):
        return said
    trains = [parameter.requires_grad for name, parameter in built.named_parameters() if not EMBEDDING.match(name)]
    if all(trains):
        return 'Full'
    if not any(parameter.requires_grad for parameter in built.parameters()):
        return 'Linear'
    return type(built).__name__ if said in ('Full', 'Linear') else said


def _said_method(backbone: Mapping[str, Any]) -> str:
    """The method of a backbone without our prompts, as its class and config say it."""
    if is_frozen_vit(backbone) and backbone.get('frozen', True):
        return added_by(backbone) or 'Linear'
    stages = backbone.get('frozen_stages', -1)
    if stages < 0:
        return 'Full'
    return 'Linear' if stages >= depth_of(backbone) else f'{stages} blocks frozen'


def depth_of(backbone: Mapping[str, Any]) -> float:
    """Number of a transformer's blocks; infinity if it is not known."""
    arch = backbone.get('arch', 'base')
    sizes = arch if isinstance(arch, Mapping) else ARCHS.get(str(arch).lower(), {})
    return sizes.get('num_layers', float('inf'))


def arch_of(backbone: Mapping[str, Any]) -> str:
    """'ViT-B' and the like, with the patch size where it is not the papers' 16; 'custom' for sizes without a name."""
    kind = type_name(backbone.get('type'))
    arch = backbone.get('arch', 'base' if is_prompted(backbone) or kind == 'VisionTransformer' else kind)
    if 'arch' not in backbone and is_prompted(backbone) and backbone.get('init_cfg'):
        return 'unknown'  # it is read from the checkpoint
    if not isinstance(arch, str):
        arch = next((name.rpartition('-')[2] for name, sizes in VisionTransformer.arch_zoo.items()
                     if sizes == dict(arch)), None)
        if arch is None:
            return 'custom'
    if arch.lower() in ARCHS:
        family, _, size = arch.lower().rpartition('-')
        arch = f'{FAMILIES.get(family, family)}-{size[0].upper()}'
    patch = backbone.get('patch_size', 16)
    return arch if patch == 16 else f'{arch}/{patch}'


def recipe_of(cfg: Mapping[str, Any], world_size: int = 1) -> dict[str, Any]:
    """Return what seeds of one setting share: dotted key -> plain value.

    ``global_batch`` is the number of images an optimizer step, of all processes. Left out are the seed, the test,
    workers, where files lie, caches of images, ``mmspt.SkipBadImages``, and a resumed run's ``load_from``.
    """
    loader, plan = cfg.get('train_dataloader') or {}, cfg.get('train_cfg') or {}
    optim_wrapper, batch = cfg.get('optim_wrapper') or {}, loader.get('batch_size')
    model = dict(cfg.get('model') or {})
    preprocessor = model.pop('data_preprocessor', None) or cfg.get('data_preprocessor')  # MMEngine reads one of them
    recipe = flatten(dict(
        optim_wrapper=optim_wrapper,
        param_scheduler=_with_ends(cfg.get('param_scheduler') or {}, plan),
        auto_scale_lr=(cfg.get('auto_scale_lr') or {}).get('enable', False),
        max_epochs=plan.get('max_epochs'),
        max_iters=plan.get('max_iters'),
        global_batch=batch and batch * world_size * optim_wrapper.get('accumulative_counts', 1),
        train=without_skipping(loader.get('dataset') or {}),
        sampler=loader.get('sampler') or {},
        batch_sampler=loader.get('batch_sampler') or {},
        drop_last=loader.get('drop_last', False),
        data_preprocessor=preprocessor or {},
        model=model,
        load_from=None if cfg.get('resume') else cfg.get('load_from'),
        custom_hooks=cfg.get('custom_hooks') or []))
    for key, value in recipe.items():
        if value in SAME:
            recipe[key] = SAME[value]
        elif value == 'torch' and key.endswith('.backend'):
            recipe[key] = 'pillow'  # whose pixels it gives
        elif isinstance(value, str) and (osp.isabs(value) or key.rpartition('.')[2] in WEIGHTS):
            if is_address(value):  # which says all
                continue
            folder, name = osp.split(osp.normpath(value))
            if ANYBODYS.fullmatch(name):
                name = value if '://' in value else osp.join(osp.basename(folder), name)
            recipe[key] = name
    return {key: value for key, value in recipe.items()
            if 'data_root' not in key.split('.') and key.rpartition('.')[2] not in CACHE}


def _with_ends(schedulers: Any, plan: Mapping[str, Any]) -> Any:
    """Name the end of our schedules where the config leaves it to MMEngine: the run's epochs, or its iterations."""
    if isinstance(schedulers, list | tuple):
        return [_with_ends(scheduler, plan) for scheduler in schedulers]
    if type_name(schedulers.get('type')) != 'WarmupCosineLR':
        return schedulers
    return dict(end=plan.get('max_epochs' if schedulers.get('by_epoch', True) else 'max_iters')) | dict(schedulers)


def flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    """Nested dicts and lists -> dotted key -> a number, text or None; MMEngine's ``_scope_`` marks are dropped."""
    if isinstance(value, Mapping):
        items = [(key, inner) for key, inner in value.items() if key != '_scope_']
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        plain = isinstance(value, str | int | float | None)
        return {prefix: value if plain else re.sub(' at 0x[0-9a-f]+', '', str(value))}  # an address is no setting
    return {name: leaf for key, inner in items
            for name, leaf in flatten(inner, f'{prefix}.{key}' if prefix else str(key)).items()}


def _trained_on(train: list[Mapping[str, Any]], test: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Type and split, and ``tested=True`` if the test reads the source of one of the data sets as well."""
    sources = [{key: dataset.get(key) for key in SOURCE} for dataset in (*train, *test) if dataset]
    shared = any(source in sources[len(train):] for source in sources[:len(train)])
    names = _joined(type_name(dataset.get('type')) for dataset in train)
    return dict(dataset=names, split=_joined(map(split_of, train)), **(dict(tested=True) if shared else {}))


def _joined(names: Iterable[str | None]) -> Any:
    """Different names in one text; None if there is none."""
    return ' + '.join(dict.fromkeys(name for name in names if name)) or None
