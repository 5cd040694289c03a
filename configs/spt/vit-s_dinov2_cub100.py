# python tools/train.py configs/spt/vit-s_dinov2_cub100.py
# configs/plans/study.yaml searches it beside other methods (docs/results.md), on the encoder of make quickstart,
# which tools/quickstart.py writes to checkpoints/; 112 x 112 pixels, for a CPU.
# rate and decay of the head: default (the digits' recipe's); with a quarter of the labels a search prefers 3e-3
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/cub100_112.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=112), head=dict(num_classes=100))

optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=10, val_interval=1)
