# DINOv2's ViT-B/14 with four register tokens, read as without
_base_ = './vit-b_dinov2.py'

pretraining = 'DINOv2, registers'

model = dict(
    backbone=dict(num_registers=4, init_cfg=dict(checkpoint='hf://facebook/dinov2-with-registers-base')))
