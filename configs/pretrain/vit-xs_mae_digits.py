# python tools/train.py configs/pretrain/vit-xs_mae_digits.py && python tools/export_backbone.py
#     work_dirs/pretrain/vit-xs_mae_digits/epoch_400.pth configs/pretrain/vit-xs_mae_digits.safetensors
# MAE (MMPretrain's own) of a ViT with 6 blocks of width 128 on the 997 unlabelled training digits, 16 x 16 pixels,
# patches of 2
_base_ = '../_base_/default_runtime.py'

model = dict(
    type='MAE',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=16,
        patch_size=2,
        mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder',
        num_patches=64,
        patch_size=2,
        in_chans=3,
        embed_dim=128,
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=4,
        mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=False, patch_size=2,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')))

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmspt.Digits',
        split='train',
        pipeline=[
            dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.6, 1.0), interpolation='bicubic'),
            dict(type='PackInputs'),
        ]))

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0., norm_decay_mult=0.))
param_scheduler = dict(
    type='mmspt.WarmupCosineLR', warmup=20, eta_min=0., by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=400)

default_hooks = dict(checkpoint=dict(interval=100, save_best=None), logger=dict(interval=8))

auto_scale_lr = dict(base_batch_size=128)
