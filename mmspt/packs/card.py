"""What a pack says of itself to people: a table, and the model card that stands beside it on a hub."""
import json
from shlex import quote
from typing import Any

from mmspt.hub import PACK, is_address, parse
from mmspt.models.weights.fingerprint import to_hex

from .backbone import find_source
from .fields import plain
from .pack import Pack

CARD = """\
---
{front}
---
# {title}

Prompts and a linear head for a frozen Vision Transformer, {size} in all: they classify images into {count} classes.
Tuned with mmspt, a plug-in for MMPretrain (Self-Prompt Tuning, https://arxiv.org/abs/2402.02382). It needs the frozen
network, too: {source}. With mmspt and its extra `hub` installed:

    python tools/predict.py photos/ --packs {address}{backbone}

```python
import mmspt

predictor = mmspt.MultiTaskPredictor({checkpoint!r}, [{address!r}])
print(predictor.predict(['photo.jpg'], {task!r}))
```

| | |
| --- | --- |
{rows}

Classes, in the order of their labels: {classes}.
{recipe}"""
RECIPE = """
The config that it was tuned with:

{text}
"""


def describe(pack: Pack) -> dict[str, str]:
    """Return what a pack is, field by field."""
    backbone, steps = pack.backbone, pack.preprocessing
    prompts = 'none (a linear probe)' if pack.prompts is None else \
        f'{backbone.prompt_type}, {" x ".join(map(str, pack.prompts.shape))}'
    for name, values in (('gates', pack.gate), ('logit scales', pack.logit_scale)):
        if values is not None:
            prompts += f'; {name} {values.min():.3g} to {values.max():.3g}'
    more = '' if len(pack.classes) <= 4 else f', ... ({len(pack.classes)})'
    return {
        'task': pack.task,
        'classes': ', '.join(pack.classes[:4]) + more,
        'prompts': prompts,
        'weights': f'{sum(t.numel() for t in pack.tensors().values()):,} numbers of '
                   f'{str(pack.weight.dtype).removeprefix("torch.")}',
        'backbone': f'{backbone.num_layers} blocks of width {backbone.embed_dims}, patches of '
                    f'{backbone.patch_size[0]} x {backbone.patch_size[1]}, {backbone.out_type}',
        'fingerprint': to_hex(pack.fingerprint),
        'its checkpoint': pack.checkpoint or 'not named',
        'images': f'{"" if steps.resize is None else f"resized to {steps.resize}, "}{steps.size[0]} x {steps.size[1]}, '
                  f'mean {steps.mean}, std {steps.std}, {"RGB" if steps.to_rgb else "BGR"}',
        'metrics': ', '.join(f'{name} {value:g}' for name, value in pack.metrics.items()) or 'none',
        'made with': ', '.join(f'{name} {value}' for name, value in pack.versions.items()),
    }


def model_card(pack: Pack, address: str) -> str:
    """Write a model card of Hugging Face's form (YAML between rules, then Markdown).

    Args:
        pack (Pack): What it describes.
        address (str): Where the pack will be, hf://ORG/NAME[@BRANCH]/FILE.

    Returns:
        str: The content of README.md.
    """
    source = find_source([pack])
    place = parse(source) if source and is_address(source) else None
    front: dict[str, Any] = dict(
        library_name='mmspt', pipeline_tag='image-classification', tags=['mmspt', 'mmpretrain', 'prompt-tuning'])
    if place is not None:
        front.update(base_model=place.repository, base_model_relation='adapter')
    if pack.metrics:
        metrics = [dict(type=name.partition('/')[0], name=name, value=value) for name, value in pack.metrics.items()]
        result = dict(task=dict(type='image-classification'), dataset=dict(name=pack.task, type=pack.task),
                      metrics=metrics)
        front['model-index'] = [{'name': f'{pack.task} on {pack.checkpoint or "a ViT"}', 'results': [result]}]
    checkpoint = source or pack.checkpoint or 'BACKBONE'
    text = ''.join(f'    {line}\n' for line in pack.recipe.splitlines())
    return plain(CARD.format(
        front='\n'.join(f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in front.items()),
        title=pack.task, size=f'{pack.nbytes:,} bytes', count=len(pack.classes), source=checkpoint,
        address=address.removesuffix(f'/{PACK}'), backbone='' if source else f' --backbone {quote(checkpoint)}',
        checkpoint=checkpoint, task=pack.task,
        rows='\n'.join(f'| {name} | {value.replace("|", chr(92) + "|")} |' for name, value in describe(pack).items()),
        classes=', '.join(pack.classes), recipe=RECIPE.format(text=text) if pack.recipe else ''))
