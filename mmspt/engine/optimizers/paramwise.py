"""The options of ``paramwise_cfg`` that a constructor reads; MMEngine passes over all others in silence."""
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from mmspt.config import type_name

COMMON = ('custom_keys', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')
DEFAULT = (*COMMON, 'bias_lr_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate')
CONSTRUCTORS = dict(
    DefaultOptimWrapperConstructor=DEFAULT,
    LearningRateDecayOptimWrapperConstructor=(*COMMON, 'layer_decay_rate'),
    TrainableOnlyOptimWrapperConstructor=(*DEFAULT, 'head_decay'))
OURS = 'TrainableOnlyOptimWrapperConstructor'
MULTIPLIERS = ('lr_mult', 'decay_mult')  # of custom_keys; whatever else stands there may be an option of a group


def check_paramwise(optim_wrapper: Mapping[str, Any]) -> None:
    """Check that the constructor reads every option of ``paramwise_cfg``; a user's own constructor is not checked.

    Raises:
        ValueError: An option that nobody reads, or that another constructor reads and that is not None.
    """
    kind = type_name(optim_wrapper.get('constructor') or 'DefaultOptimWrapperConstructor')
    paramwise, keys = optim_wrapper.get('paramwise_cfg') or {}, CONSTRUCTORS.get(kind)
    if keys is None or not isinstance(paramwise, Mapping):
        return
    by_layer = 'layer_decay_rate' in keys  # this constructor reads no lr_mult
    for key, value in paramwise.items():
        readers = ['mmspt.' * (other == OURS) + other for other, known in CONSTRUCTORS.items() if key in known]
        if key not in keys and not key.startswith('_') and not (readers and value is None):
            _refuse(key, value, kind, f'take constructor={" or ".join(readers)}, or set it to None' if readers else
                    f'write {(get_close_matches(key, keys, 1) or [" or ".join(keys)])[0]}')
    for name, options in (paramwise.get('custom_keys') or {}).items():
        for key in options if isinstance(options, Mapping) else ():
            near = get_close_matches(key, MULTIPLIERS, 1, 0.75)
            if near and (key not in MULTIPLIERS or (by_layer and key == 'lr_mult')):
                _refuse(f'custom_keys[{name!r}].{key}', options[key], kind,
                        'leave it out, or take another constructor' if key in MULTIPLIERS else f'write {near[0]}')


def _refuse(key: str, value: Any, kind: str, remedy: str) -> NoReturn:
    raise ValueError(f'every option of optim_wrapper.paramwise_cfg must act, but {kind} does not read '
                     f'{key}={value!r}: {remedy}')
