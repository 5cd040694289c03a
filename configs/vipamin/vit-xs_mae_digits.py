# python tools/train.py configs/vipamin/vit-xs_mae_digits.py
# VIPAMIN-Deep on the small MAE that this repository holds; rate, decay, k and lambda: default (the middle of what the
# authors searched for a ViT-B), not searched
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/digits.py', '../_base_/schedules/vipamin_100e.py',
    '../_base_/default_runtime.py'
]

# k=128 of the authors' grid is more than the 64 patches of an image
search_space = [
    'lr=0.00625,0.0125,0.03125,0.0625,0.125,0.3125,0.625',
    'custom_hooks.0.initializer.k=2,8,32',
    'custom_hooks.0.initializer.lam=0,0.5,1',
]

model = dict(head=dict(num_classes=10))

param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=12, val_interval=1)
default_hooks = dict(logger=dict(interval=7), checkpoint=dict(interval=4), nmi=dict(interval=7))
