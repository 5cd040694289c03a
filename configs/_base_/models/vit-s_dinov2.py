# DINOv2's ViT-S/14
_base_ = './vit-b_dinov2.py'

model = dict(
    backbone=dict(arch='dinov2-small', init_cfg=dict(checkpoint='hf://facebook/dinov2-small')),
    head=dict(in_channels=384))
