# LD_PRELOAD=libtcmalloc_minimal.so.4 python tools/train.py configs/pretrain/vit-8x128_mocov3_cifar10.py
# python tools/export_backbone.py work_dirs/pretrain/vit-8x128_mocov3_cifar10/epoch_8.pth
#     configs/pretrain/vit-8x128_mocov3_cifar10.safetensors
# MoCo-v3 (MMPretrain's own) of the same ViT on the same images as vit-8x128_mae_cifar10.py, for about the hours that
# MAE had, which is fewer epochs (8, not 50): 2.1 hours on two cores of an EPYC with tcmalloc, preloaded above; the C
# library's malloc made a step 1.6 times as long. Flips, colours, grey, momentum, temperature, decay and the frozen
# projection of patches as in MMPretrain's recipe of ViT-S. Otherwise than there: crops from 0.2 of the area on (0.08),
# no blur and no solarization, projector 512 -> 128 (4096 -> 256), a peak rate of 5e-4 for batches of 256 (1.5e-4)
_base_ = '../_base_/default_runtime.py'

mlp = dict(
    type='NonLinearNeck', in_channels=128, hid_channels=512, out_channels=128, num_layers=2, with_bias=False,
    with_last_bn=True, with_last_bn_affine=False, with_last_bias=False, with_avg_pool=False,
    norm_cfg=dict(type='BN1d'))

model = dict(
    type='MoCoV3',
    base_momentum=0.01,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True),
    backbone=dict(
        type='MoCoV3ViT',
        arch=dict(embed_dims=128, num_layers=8, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        stop_grad_conv1=True),
    neck=dict(mlp, num_layers=3),
    head=dict(
        type='MoCoV3Head',
        predictor=mlp,
        loss=dict(type='CrossEntropyLoss', loss_weight=2 * 0.2),
        temperature=0.2))

view = [
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    # torchvision's colours, as mmcv 2.2 cannot turn a hue backwards on numpy 2
    dict(type='RandomApply', prob=0.8, transforms=[
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        dict(type='PILToNumpy', to_bgr=True)]),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989)),
    dict(type='RandomFlip', prob=0.5),
]

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
            dict(type='MultiView', num_views=[2], transforms=[view]),
            dict(type='PackInputs'),
        ]))

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.1),
    paramwise_cfg=dict(bias_decay_mult=0., norm_decay_mult=0.))
param_scheduler = dict(
    type='mmspt.WarmupCosineLR', warmup=1, eta_min=0., by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=8)

default_hooks = dict(checkpoint=dict(interval=1, save_best=None), logger=dict(interval=65))

auto_scale_lr = dict(base_batch_size=256)
