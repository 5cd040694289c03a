# python tools/train.py configs/gatevpt/vit-xs_mae_digits.py
# GateVPT on the small MAE that this repository holds, with as many prompts as a block of configs/spt's recipe has;
# rate and decay: default (the authors' for a ViT-B with MAE on CUB), not searched
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/digits.py', '../_base_/schedules/gatevpt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(prompts=dict(type='mmspt.GatedPrompts'), num_prompts=20, prompt_drop_rate=0.1),
    head=dict(num_classes=10))

train_dataloader = dict(batch_size=64)

param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=12, val_interval=1)
default_hooks = dict(logger=dict(interval=4), checkpoint=dict(interval=4), nmi=dict(interval=4))
