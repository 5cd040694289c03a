# configs/plans/study.yaml searches it: full fine-tuning of the ViT-S on Flowers-17 at 112 x 112 pixels
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/flowers17_112.py',
    '../_base_/schedules/finetune_100e.py', '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=112, num_prompts=0, frozen=False, drop_path_rate=0.1), head=dict(num_classes=17))

param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=10, val_interval=1)
