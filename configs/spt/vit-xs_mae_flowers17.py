# python tools/train.py configs/spt/vit-xs_mae_flowers17.py
# photographs at 32 x 32 pixels on the small MAE that this repository holds, which knows handwritten digits alone:
# minutes on a CPU, to try tools out (tools/sweep.py), not to see what SPT can do
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/flowers17_32.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=32, patch_size=2), head=dict(num_classes=17))

param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=10, val_interval=1)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1), nmi=dict(interval=11))
