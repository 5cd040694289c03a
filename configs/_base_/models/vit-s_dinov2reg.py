# DINOv2's ViT-S/14 with four register tokens
_base_ = './vit-b_dinov2reg.py'

model = dict(
    backbone=dict(arch='dinov2-small', init_cfg=dict(checkpoint='hf://facebook/dinov2-with-registers-small')),
    head=dict(in_channels=384))
