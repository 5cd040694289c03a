# python tools/train.py configs/pretrain/vit-8x128_mae_cifar10.py && python tools/export_backbone.py
#     work_dirs/pretrain/vit-8x128_mae_cifar10/epoch_50.pth configs/pretrain/vit-8x128_mae_cifar10.safetensors
# MAE (MMPretrain's own) of a ViT with 8 blocks of width 128, patches of 4, on CIFAR-10's 50,000 training images,
# unlabelled: 2.2 hours on two Xeon cores that had other work, too; loss and seconds: the .log.json beside this file
_base_ = '../_base_/default_runtime.py'

model = dict(
    type='MAE',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True),
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=128, num_layers=8, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder',
        num_patches=64,
        patch_size=4,
        in_chans=3,
        embed_dim=128,
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=4,
        mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')))

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='mmspt.RoundDownSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_root='data/cifar10',
        data_prefix='train',
        with_label=False,
        pipeline=[
            dict(type='mmspt.LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.4, 1.0), interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]))

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0., norm_decay_mult=0.))
param_scheduler = dict(
    type='mmspt.WarmupCosineLR', warmup=4, eta_min=0., by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=50)

default_hooks = dict(checkpoint=dict(interval=1, save_best=None), logger=dict(interval=65))

auto_scale_lr = dict(base_batch_size=256)
