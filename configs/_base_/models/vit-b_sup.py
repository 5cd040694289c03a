# supervised on ImageNet-21k, read like MoCo-v3: the authors took timm's `vit_base_patch16_224_in21k`, which is now
# called `vit_base_patch16_224.augreg_in21k`
_base_ = './vit-b_mocov3.py'

pretraining = 'supervised'

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='checkpoints/vit_base_patch16_224.augreg_in21k.safetensors')),
    head=dict(init_cfg=dict(std=0.02)))
