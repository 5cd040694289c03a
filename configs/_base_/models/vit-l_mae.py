# MAE, ViT-Large: 24 blocks of width 1,024
_base_ = './vit-b_mae.py'

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='checkpoints/mae_pretrain_vit_large.pth')),
    head=dict(in_channels=1024))
