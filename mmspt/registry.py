"""The scope ``mmspt``: children of MMEngine's root registries.

A config names our classes with the prefix (``type='mmspt.PromptedViT'``) and keeps ``default_scope='mmpretrain'``;
the ``locations`` import on demand whatever the prefix asks for, so no ``custom_imports`` is needed.
"""
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmspt', locations=['mmspt.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmspt', locations=['mmspt.engine.hooks'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmspt', locations=['mmspt.models'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmspt',
    locations=['mmspt.engine.optimizers'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmspt', locations=['mmspt.engine.optimizers'])
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, scope='mmspt', locations=['mmspt.engine.schedulers'])
# prompt initializers: not Modules, so not MODELS
TASK_UTILS = Registry('task util', parent=MMENGINE_TASK_UTILS, scope='mmspt', locations=['mmspt.prompts'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmspt', locations=['mmspt.datasets'])
