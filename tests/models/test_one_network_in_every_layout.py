"""One network, written under every publisher's names, puts out the same to the bit; the names are written out here."""
import random

import pytest
import torch
from safetensors.torch import save_file

from mmspt.models import PromptedViT

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
KINDS = dict(
    plain=dict(norm_cfg=dict(type='LN', eps=1e-12)),
    scaled=dict(layer_scale_init_value=1e-5, num_registers=3),
    clip=dict(pre_norm=True, patch_cfg=dict(bias=False), layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))))
OURS = {  # what is renamed -> MMPretrain's name; {} is the block
    'cls': 'cls_token', 'position': 'pos_embed', 'registers': 'register_tokens', 'patch': 'patch_embed.projection',
    'before': 'pre_norm', 'norm1': 'layers.{}.ln1', 'qkv': 'layers.{}.attn.qkv', 'proj': 'layers.{}.attn.proj',
    'scale1': 'layers.{}.attn.gamma1.weight', 'norm2': 'layers.{}.ln2', 'fc1': 'layers.{}.ffn.layers.0.0',
    'fc2': 'layers.{}.ffn.layers.1', 'scale2': 'layers.{}.ffn.gamma2.weight', 'norm': 'ln1'}
TIMM = {
    'cls': 'cls_token', 'position': 'pos_embed', 'registers': 'reg_token', 'patch': 'patch_embed.proj',
    'before': 'norm_pre', 'norm1': 'blocks.{}.norm1', 'qkv': 'blocks.{}.attn.qkv', 'proj': 'blocks.{}.attn.proj',
    'scale1': 'blocks.{}.ls1.gamma', 'norm2': 'blocks.{}.norm2', 'fc1': 'blocks.{}.mlp.fc1',
    'fc2': 'blocks.{}.mlp.fc2', 'scale2': 'blocks.{}.ls2.gamma', 'norm': 'norm'}
FAIR = TIMM | {'registers': 'register_tokens'}
HUB = {
    'cls': 'embeddings.cls_token', 'position': 'embeddings.position_embeddings',
    'patch': 'embeddings.patch_embeddings.projection', 'norm1': 'encoder.layer.{}.layernorm_before',
    'proj': 'encoder.layer.{}.attention.output.dense', 'norm2': 'encoder.layer.{}.layernorm_after',
    'fc1': 'encoder.layer.{}.intermediate.dense', 'fc2': 'encoder.layer.{}.output.dense', 'norm': 'layernorm'}
LAYOUTS = {  # name -> kind of network, names; three names of 'qkv' are parts of it
    'mmpretrain': ('plain', {key: f'backbone.{name}' for key, name in OURS.items()}), 'timm': ('plain', TIMM),
    'fair mae': ('plain', FAIR),
    'mocov3': ('plain', {key: f'module.base_encoder.{name}' for key, name in FAIR.items()}),
    'ibot, student': ('plain', {key: f'student.module.backbone.{name}' for key, name in FAIR.items()}),
    'open_clip, tower of timm': ('plain', {key: f'visual.trunk.{name}' for key, name in TIMM.items()}),
    'transformers vit': ('plain', {key: f'vit.{name}' for key, name in HUB.items()} | {
        'qkv': [f'vit.encoder.layer.{{}}.attention.attention.{part}' for part in ('query', 'key', 'value')]}),
    'transformers vit_mae': ('plain', HUB | {
        'qkv': [f'encoder.layer.{{}}.attention.attention.{part}' for part in ('query', 'key', 'value')]}),
    'mmpretrain, scaled': ('scaled', OURS), 'timm, scaled': ('scaled', TIMM), 'fair dinov2': ('scaled', FAIR),
    'fair dinov2, chunks': ('scaled', {key: name.replace('blocks.', 'blocks.1.') for key, name in FAIR.items()}),
    'fair dino, teacher': ('scaled', {key: f'teacher.backbone.{name}' for key, name in FAIR.items()}),
    'transformers dinov2': ('scaled', {
        'cls': 'embeddings.cls_token', 'position': 'embeddings.position_embeddings',
        'registers': 'embeddings.register_tokens', 'patch': 'embeddings.patch_embeddings.projection',
        'norm1': 'encoder.layer.{}.norm1', 'proj': 'encoder.layer.{}.attention.output.dense',
        'qkv': [f'encoder.layer.{{}}.attention.attention.{part}' for part in ('query', 'key', 'value')],
        'scale1': 'encoder.layer.{}.layer_scale1.lambda1', 'norm2': 'encoder.layer.{}.norm2',
        'fc1': 'encoder.layer.{}.mlp.fc1', 'fc2': 'encoder.layer.{}.mlp.fc2',
        'scale2': 'encoder.layer.{}.layer_scale2.lambda1', 'norm': 'layernorm'}),
    'mmpretrain, clip': ('clip', OURS), 'timm, clip': ('clip', TIMM),
    'openai clip': ('clip', {
        'cls': 'visual.class_embedding', 'position': 'visual.positional_embedding', 'patch': 'visual.conv1',
        'before': 'visual.ln_pre', 'norm1': 'visual.transformer.resblocks.{}.ln_1',
        'qkv': 'visual.transformer.resblocks.{}.attn.in_proj',
        'proj': 'visual.transformer.resblocks.{}.attn.out_proj', 'norm2': 'visual.transformer.resblocks.{}.ln_2',
        'fc1': 'visual.transformer.resblocks.{}.mlp.c_fc', 'fc2': 'visual.transformer.resblocks.{}.mlp.c_proj',
        'norm': 'visual.ln_post'}),
    'transformers clip': ('clip', {
        'cls': 'vision_model.embeddings.class_embedding',
        'position': 'vision_model.embeddings.position_embedding.weight',
        'patch': 'vision_model.embeddings.patch_embedding', 'before': 'vision_model.pre_layrnorm',
        'norm1': 'vision_model.encoder.layers.{}.layer_norm1',
        'qkv': [f'vision_model.encoder.layers.{{}}.self_attn.{part}_proj' for part in 'qkv'],
        'proj': 'vision_model.encoder.layers.{}.self_attn.out_proj',
        'norm2': 'vision_model.encoder.layers.{}.layer_norm2', 'fc1': 'vision_model.encoder.layers.{}.mlp.fc1',
        'fc2': 'vision_model.encoder.layers.{}.mlp.fc2', 'norm': 'vision_model.post_layernorm'}),
}
OTHERS = {  # what files have beside the network
    'fair mae': ['mask_token', 'decoder_embed.weight', 'decoder_blocks.0.norm1.weight'],
    'mocov3': ['module.predictor.0.weight', 'module.base_encoder.head.0.weight'],
    'transformers vit': ['vit.pooler.dense.weight', 'classifier.weight'],
    'transformers vit_mae': ['decoder.mask_token'], 'fair dinov2': ['mask_token'],
    'fair dino, teacher': ['teacher.head.mlp.0.weight'],
    'timm, scaled': ['head.weight'], 'transformers dinov2': ['embeddings.mask_token'],
    'openai clip': ['visual.proj', 'text_projection', 'logit_scale', 'token_embedding.weight'],
    'transformers clip': ['visual_projection.weight', 'text_model.final_layer_norm.weight', 'logit_scale']}


def build(kind, **kwargs):
    return PromptedViT(**{**dict(arch=ARCH, img_size=16, patch_size=4, num_prompts=0, out_type='raw'), **KINDS[kind],
                          **kwargs})


def drawn(kind):
    """Random weights by MMPretrain's names."""
    generator = torch.Generator().manual_seed(1)
    return {name: 0.3 * torch.randn(value.shape, generator=generator)
            for name, value in sorted(build(kind).state_dict().items())}


def written(layout, dtype):
    """The same weights under a publisher's names, in any order."""
    kind, names = LAYOUTS[layout]
    weights = {}
    for name, value in drawn(kind).items():
        block = name.split('.')[1] if name.startswith('layers.') else None
        for key, ours in OURS.items():
            ours = ours.format(block)
            if key not in names:
                continue
            if name not in (ours, f'{ours}.weight', f'{ours}.bias'):
                continue
            ending, theirs = name.removeprefix(ours), names[key]
            if isinstance(theirs, list):
                for part, own in zip(theirs, value.chunk(3), strict=True):
                    weights[part.format(block) + ending] = own
                continue
            if theirs.endswith('in_proj'):
                ending = ending.replace('.', '_')
            if 'class_embedding' in theirs:
                value = value[0, 0]
            elif 'positional_embedding' in theirs or 'position_embedding.' in theirs:
                value = value[0]
            weights[theirs.format(block) + ending] = value
    weights |= {name: torch.ones(1, 16) for name in OTHERS.get(layout, ())}
    keys = list(weights)
    random.Random(layout).shuffle(keys)
    return {key: weights[key].to(dtype).contiguous() for key in keys}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_features_are_equal_to_the_bit(layout, dtype, tmp_path):
    kind, _ = LAYOUTS[layout]
    save_file(written(layout, dtype), tmp_path / 'model.safetensors')
    vit = build(kind, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')))
    vit.init_weights()
    expected = build(kind)
    expected.load_state_dict({name: value.to(dtype).float() for name, value in drawn(kind).items()})
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        (own, ), (theirs, ) = vit.eval()(images), expected.eval()(images)
    assert torch.equal(own, theirs) and own.isfinite().all() and own.std() > 0.1
    assert torch.equal(vit.fingerprint(), expected.fingerprint())
