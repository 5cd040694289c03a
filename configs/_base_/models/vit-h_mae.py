# MAE, ViT-Huge: 32 blocks of width 1,280, patches of 14
_base_ = './vit-b_mae.py'

model = dict(
    backbone=dict(arch='huge', patch_size=14, init_cfg=dict(checkpoint='checkpoints/mae_pretrain_vit_huge.pth')),
    head=dict(in_channels=1280))
