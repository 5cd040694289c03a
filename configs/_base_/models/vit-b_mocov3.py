# MoCo-v3: final norm (`ln1`), CLS, head
_base_ = './vit-b_mae.py'

pretraining = 'MoCo-v3'

model = dict(
    backbone=dict(
        out_type='cls_token',
        final_norm=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/linear-vit-b-300ep.pth.tar')),
    head=dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01, bias=0.)))
