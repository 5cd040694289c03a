# the small MAE that this repository holds (configs/pretrain/vit-xs_mae_digits.py made it)
_base_ = './vit-b_mae.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=16,
        patch_size=2,
        init_cfg=dict(checkpoint='{{ fileDirname }}/../../pretrain/vit-xs_mae_digits.safetensors')),
    head=dict(in_channels=128))
