# DINOv2's ViT-L/14
_base_ = './vit-b_dinov2.py'

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='hf://facebook/dinov2-large')),
    head=dict(in_channels=1024))
