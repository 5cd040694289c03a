# python tools/train.py configs/spt/vit-xs_mae_digits.py        (make quickstart runs it beside VPT and a linear probe)
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/digits.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=10))

param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=12, val_interval=1)
default_hooks = dict(logger=dict(interval=7), checkpoint=dict(interval=4), nmi=dict(interval=7))
