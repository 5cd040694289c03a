# DINOv2's ViT-S/14: final norm (`ln1`), CLS, head
_base_ = './vit-b_mocov3.py'

pretraining = 'DINOv2'

model = dict(
    backbone=dict(
        arch='dinov2-small',
        img_size=224,
        patch_size=14,
        layer_scale_init_value=1e-5,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dinov2_vits14_focus.safetensors')),
    head=dict(in_channels=384, init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.)))
