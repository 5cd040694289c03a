# python tools/train.py configs/spt/vit-xs_mae_flowers17.py
# photographs at 32 x 32 pixels on the small MAE that this repository holds, which knows handwritten digits alone:
# minutes on a CPU, to try tools out (tools/sweep.py), not to see what SPT can do
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/flowers17.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=32, patch_size=2), head=dict(num_classes=17))

small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32, interpolation='bicubic')]
train_pipeline = [*small, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [*small, dict(type='PackInputs')]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))

param_scheduler = dict(warmup=2, end=10)
train_cfg = dict(max_epochs=10, val_interval=1)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1), nmi=dict(interval=11))
