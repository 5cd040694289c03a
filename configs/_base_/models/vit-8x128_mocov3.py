# 8 blocks of width 128 on 32 x 32 pixels, pre-trained on CIFAR-10 (configs/pretrain/vit-8x128_mocov3_cifar10.py)
_base_ = './vit-b_mocov3.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=8, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        init_cfg=dict(checkpoint='{{ fileDirname }}/../../pretrain/vit-8x128_mocov3_cifar10.safetensors')),
    head=dict(in_channels=128))
