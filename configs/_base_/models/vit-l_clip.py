# OpenAI's CLIP, the vision tower of ViT-L/14
_base_ = './vit-b_clip.py'

model = dict(
    backbone=dict(arch='large', patch_size=14, init_cfg=dict(checkpoint='hf://openai/clip-vit-large-patch14')),
    head=dict(in_channels=1024))
