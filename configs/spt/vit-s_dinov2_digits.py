# python tools/train.py configs/spt/vit-s_dinov2_digits.py
# make quickstart runs it beside VPT and a linear probe, and writes the encoder to checkpoints/ first.
# rate: the best of a search on validation images (tools/quickstart.py --minutes 30, benchmarks/results/
# quickstart_digits.json); test accuracy over three seeds: 88.1 +- 3.2, VPT 82.7 +- 1.5, linear probe 67.9 +- 3.2
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/digits_56.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=56), head=dict(num_classes=10))

optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup=1)  # a tenth, as the recipe has
train_cfg = dict(max_epochs=12, val_interval=2)
default_hooks = dict(logger=dict(interval=7), checkpoint=dict(interval=4), nmi=dict(interval=7))
