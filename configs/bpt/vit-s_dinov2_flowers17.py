# python tools/train.py configs/bpt/vit-s_dinov2_flowers17.py
# photographs at 112 x 112 pixels on the encoder of make quickstart, which tools/quickstart.py writes to checkpoints/.
# rate and decay of the head: default (the digits' recipe's), not searched for this task; not yet run here
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/flowers17_112.py', '../_base_/schedules/bpt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(img_size=112, prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50),
    head=dict(num_classes=17))

optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=20, val_interval=5)
