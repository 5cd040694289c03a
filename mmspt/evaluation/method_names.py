"""How results name a method: by the class of its prompts and by how they start."""
import inspect
from collections.abc import Mapping
from typing import Any

from mmpretrain.registry import MODELS as parent

from mmspt.models import GatedPromptedViT, GatedPrompts, PromptedViT, PromptMethod
from mmspt.models.backbones.frozen_vit import FrozenViT
from mmspt.models.backbones.prompted_vit import PROMPT_TYPES
from mmspt.prompts import PromptInitializer
from mmspt.registry import MODELS, TASK_UTILS

USUAL_STARTS = dict(SPT='RandomSampleInit', VPT='UniformInit', VIPAMIN='VIPAMINInit')
"""Methods that are named by how prompts start -> the start that results do not mention."""


def is_prompted(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone's config names a PromptedViT, with prompts or without."""
    return _is_kind(backbone, PromptedViT)


def is_frozen_vit(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone's config names a FrozenViT, ours or somebody else's."""
    return _is_kind(backbone, FrozenViT)


def added_by(backbone: Mapping[str, Any]) -> str | None:
    """Name the class of a FrozenViT that adds learnable parts to ours; None if it adds none."""
    found = _class_of(backbone.get('type'), MODELS)
    return None if set(found.learnable_modules) <= set(PromptedViT.learnable_modules) else found.__name__


def count_prompts(backbone: Mapping[str, Any]) -> int:
    """Number of prompts that a backbone's config asks for; 0 if it has none."""
    if not is_prompted(backbone):
        given = backbone.get('num_prompts')
        return given if isinstance(given, int) else 0  # of somebody else's class
    given = (backbone.get('prompts') or {}).get('num_prompts', backbone.get('num_prompts'))
    if given is not None:
        return given
    parameter = inspect.signature(prompts_class(backbone)).parameters.get('num_prompts')
    return 0 if parameter is None else parameter.default


def prompts_class(backbone: Mapping[str, Any]) -> type[PromptMethod]:
    """The class of the prompts that the config of a PromptedViT names."""
    if _is_kind(backbone, GatedPromptedViT):
        return GatedPrompts
    short = PROMPT_TYPES[backbone.get('prompt_type', 'deep')]
    return _class_of((backbone.get('prompts') or {}).get('type', short), MODELS) or PromptMethod


def name_prompts(backbone: Mapping[str, Any], initializer: str) -> str:
    """Name a backbone's method: by its prompts' class, or 'SPT-Deep' by its initializer's class and where they act."""
    kind = prompts_class(backbone)
    if kind.name is not None:
        return kind.name
    start = _class_of(initializer, TASK_UTILS)
    family = getattr(start, 'method', PromptInitializer.method)
    return f'{family}-{"Deep" if kind.deep else "Shallow"}'


def unusual(method: str, initializer: str | None, num_prompts: int) -> list[str]:
    """Say what sets prompts apart from the usual form of their method: another start, another number."""
    method = method.partition(',')[0]
    registered = [*MODELS.module_dict.values(), *parent.module_dict.values()]  # users' own may be among MMPretrain's
    kinds = {kind.name: kind for kind in registered
             if isinstance(kind, type) and issubclass(kind, PromptMethod) and kind.name is not None}
    family, _, place = method.partition('-')
    short = dict(Deep='DeepPrompts', Shallow='ShallowPrompts').get(place)
    kind = kinds.get(method) or (None if short is None else MODELS.module_dict.get(short))
    start = kinds[method].usual_start if method in kinds else USUAL_STARTS.get(family)
    parts = [] if initializer in (None, start) else [str(initializer)]
    if num_prompts not in (0, None if kind is None else kind.usual_num_prompts):
        parts.append('1 prompt' if num_prompts == 1 else f'{num_prompts} prompts')
    return parts


def _class_of(kind: Any, registry: Any) -> Any:
    """A class by its name in a registry or an import path; what is no known name becomes None."""
    return kind if isinstance(kind, type) else registry.get(kind) if isinstance(kind, str) else None


def _is_kind(backbone: Mapping[str, Any], base: type) -> bool:
    found = _class_of(backbone.get('type'), MODELS)
    return isinstance(found, type) and issubclass(found, base)
