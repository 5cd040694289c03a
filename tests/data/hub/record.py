"""Record small random networks of transformers, timm and OpenCLIP, as these save them, and what they put out.

    python record.py FOLDER     in an environment with transformers 5.24.0, timm 1.0.31 and open_clip_torch 3.3.0

Each file NAME.safetensors has the weights by the library's own names; NAME.npz has ``images`` (2, 3, 16, 16) and
``tokens`` (2, N, 16), what leaves the network after its final norm, in the library's order of tokens.
"""
import sys
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

WIDTH, DEPTH, HEADS, SIZE, PATCH = 16, 2, 2, 16, 4
HUB = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)


def draw(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draw all weights anew, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                norm = 'norm' in name or 'ln_' in name or 'lambda' in name or 'gamma' in name
                value.copy_(1 + 0.2 * noise if norm and name.endswith(('weight', 'lambda1', 'gamma')) else 0.2 * noise)
    return model.eval()


def hub(name: str, kind: str, **kwargs) -> None:
    """A model of transformers, saved by its save_pretrained."""
    model = draw(getattr(transformers, f'{kind}Model')(getattr(transformers, f'{kind}Config')(**HUB, **kwargs)), 0)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / 'model.safetensors').rename(FOLDER / f'{name}.safetensors')
    for file in (FOLDER / name).iterdir():
        file.unlink()
    (FOLDER / name).rmdir()
    inside = {f'{key}': value.contiguous() for key, value in model.state_dict().items()}
    if inside.keys() != load_file(FOLDER / f'{name}.safetensors').keys():  # the names in memory are others
        save_file(inside, FOLDER / f'{name}_in_memory.safetensors')
    torch.manual_seed(0)  # MAE shuffles
    with torch.no_grad():
        out = model(IMAGES)
    tokens = out.last_hidden_state
    if kind == 'CLIPVision':
        norm = getattr(model, 'vision_model', model).post_layernorm
        tokens = norm(tokens)
    np.savez(FOLDER / f'{name}.npz', images=IMAGES.numpy(), tokens=tokens.detach().numpy())


def record_timm(name: str, **kwargs) -> None:
    """A ViT of timm."""
    model = draw(timm.models.VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=2., num_classes=3,
        **kwargs), 1)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, FOLDER / f'{name}.safetensors')
    with torch.no_grad():
        tokens = model.forward_features(IMAGES)
    np.savez(FOLDER / f'{name}.npz', images=IMAGES.numpy(), tokens=tokens.numpy())


def record_clip(name: str, quick: bool) -> None:
    """A CLIP of OpenCLIP, both towers in the file."""
    model = draw(open_clip.CLIP(
        embed_dim=8, quick_gelu=quick,
        vision_cfg=dict(layers=DEPTH, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=SIZE,
                        mlp_ratio=2.),
        text_cfg=dict(context_length=4, vocab_size=10, width=8, heads=1, layers=1)), 2)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, FOLDER / f'{name}.safetensors')
    model.visual.output_tokens, model.visual.proj = True, None
    with torch.no_grad():
        pooled, tokens = model.visual(IMAGES)
    np.savez(FOLDER / f'{name}.npz', images=IMAGES.numpy(), tokens=torch.cat((pooled[:, None], tokens), 1).numpy())


if __name__ == '__main__':
    FOLDER = Path(sys.argv[1])
    IMAGES = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    hub('vit', 'ViT', intermediate_size=32, layer_norm_eps=1e-6)
    hub('vit_mae', 'ViTMAE', intermediate_size=32, layer_norm_eps=1e-6, mask_ratio=0.)
    hub('dinov2', 'Dinov2', mlp_ratio=2)
    hub('dinov2_registers', 'Dinov2WithRegisters', mlp_ratio=2, num_register_tokens=3)
    hub('clip', 'CLIPVision', intermediate_size=32, layer_norm_eps=1e-6)
    record_timm('timm', init_values=1e-5)
    record_timm('timm_reg4', reg_tokens=4, no_embed_class=True, init_values=1e-5)
    norm = partial(torch.nn.LayerNorm, eps=1e-5)  # as timm's CLIP towers have it
    record_timm('timm_clip', pre_norm=True, norm_layer=norm)
    record_timm('timm_clip_quick', pre_norm=True, norm_layer=norm, act_layer=timm.layers.QuickGELU)
    record_clip('open_clip', quick=False)
    record_clip('openai_clip', quick=True)
