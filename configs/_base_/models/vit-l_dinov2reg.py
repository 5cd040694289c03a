# DINOv2's ViT-L/14 with four register tokens
_base_ = './vit-b_dinov2reg.py'

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='hf://facebook/dinov2-with-registers-large')),
    head=dict(in_channels=1024))
