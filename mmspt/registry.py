"""The scope ``mmspt``: a child of each of MMPretrain's registries.

A config may keep ``default_scope='mmpretrain'`` and name our classes with the prefix (``type='mmspt.PromptedViT'``):
the prefix imports what it needs, no ``custom_imports``. It may also inherit ours (``_base_ = 'mmspt::spt/NAME.py'``):
MMEngine then builds every inherited dict in our scope, so each kind of registry is here, and the names of MMPretrain
and MMEngine are found through the parents.
"""
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain


def child_of(parent: Registry, *locations: str) -> Registry:
    """Return our registry below one of MMPretrain's.

    Args:
        parent (Registry): MMPretrain's registry of the same kind.
        *locations (str): Our modules that register classes of this kind. MMPretrain's are imported as well: MMEngine
            looks names up in a parent, but does not import the parent's modules first.
    """
    child = Registry(parent.name, parent=parent, scope='mmspt', locations=[*parent._locations, *locations])
    if parent.root is not parent:  # another package's scope looks for the prefix among the root's children alone
        parent.root._add_child(child)
    return child


RUNNERS = child_of(mmpretrain.RUNNERS)
RUNNER_CONSTRUCTORS = child_of(mmpretrain.RUNNER_CONSTRUCTORS)
LOOPS = child_of(mmpretrain.LOOPS)
HOOKS = child_of(mmpretrain.HOOKS, 'mmspt.engine.hooks')
LOG_PROCESSORS = child_of(mmpretrain.LOG_PROCESSORS)
OPTIMIZERS = child_of(mmpretrain.OPTIMIZERS)
OPTIM_WRAPPERS = child_of(mmpretrain.OPTIM_WRAPPERS, 'mmspt.engine.optimizers')
OPTIM_WRAPPER_CONSTRUCTORS = child_of(mmpretrain.OPTIM_WRAPPER_CONSTRUCTORS, 'mmspt.engine.optimizers')
PARAM_SCHEDULERS = child_of(mmpretrain.PARAM_SCHEDULERS, 'mmspt.engine.schedulers')
DATASETS = child_of(mmpretrain.DATASETS, 'mmspt.datasets')
DATA_SAMPLERS = child_of(mmpretrain.DATA_SAMPLERS, 'mmspt.datasets')
TRANSFORMS = child_of(mmpretrain.TRANSFORMS, 'mmspt.datasets')
MODELS = child_of(mmpretrain.MODELS, 'mmspt.models', 'mmspt.packs.image_classifier')
MODEL_WRAPPERS = child_of(mmpretrain.MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = child_of(mmpretrain.WEIGHT_INITIALIZERS)
BATCH_AUGMENTS = child_of(mmpretrain.BATCH_AUGMENTS)
# prompt initializers: not Modules, so not MODELS
TASK_UTILS = child_of(mmpretrain.TASK_UTILS, 'mmspt.prompts')
TOKENIZER = child_of(mmpretrain.TOKENIZER)
METRICS = child_of(mmpretrain.METRICS)
EVALUATORS = child_of(mmpretrain.EVALUATORS)
VISUALIZERS = child_of(mmpretrain.VISUALIZERS)
VISBACKENDS = child_of(mmpretrain.VISBACKENDS)
