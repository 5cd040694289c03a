# MMSPT_BACKBONE=mae MMSPT_TASK=flowers17_area_32 python tools/sweep.py configs/study/spt.py --trials 6
# the small network of docs/results.md, one method a file: the ViT that this repository pre-trained on CIFAR-10 (mae or
# mocov3), a task (cifar10_1k, flowers17_area_32, digits_32; flowers17_area_64 with model.backbone.img_size=64); the two
# variables choose, and those above are their defaults. Decays of prompts: the authors'; of the head: default; rates:
# searched over two and a half decades, as prompts as long as tokens want larger ones than short prompts
_base_ = [
    '../_base_/models/vit-8x128_{{$MMSPT_BACKBONE:mae}}.py', '../_base_/datasets/{{$MMSPT_TASK:flowers17_area_32}}.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

# what the backbone was pre-trained with, whatever the task
data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])
model = dict(head=dict(num_classes={{_base_.data_preprocessor.num_classes}}))

optim_wrapper = dict(paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=20, val_interval=1)
search_space = ['lr=0.01,0.03,0.1,0.3,1,3']

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5))
