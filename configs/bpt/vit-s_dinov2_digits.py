# python tools/train.py configs/bpt/vit-s_dinov2_digits.py
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/digits_56.py', '../_base_/schedules/bpt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(img_size=56, prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50),
    head=dict(num_classes=10))

optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup=1)  # a tenth, as the recipe has
train_cfg = dict(max_epochs=12, val_interval=2)
default_hooks = dict(logger=dict(interval=7), checkpoint=dict(interval=4), nmi=dict(interval=7))
