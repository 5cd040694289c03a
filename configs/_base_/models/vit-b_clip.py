# OpenAI's CLIP, the vision tower of ViT-B/16: final norm (`ln1`), CLS, head, without CLIP's projection. Its images have
# a mean and a standard deviation of their own, which the recipes set
_base_ = './vit-b_mocov3.py'

pretraining = 'CLIP'

model = dict(
    backbone=dict(
        pre_norm=True,
        norm_cfg=dict(type='LN', eps=1e-5),
        layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')),
        init_cfg=dict(checkpoint='hf://openai/clip-vit-base-patch16')),
    head=dict(init_cfg=dict(std=0.02)))
