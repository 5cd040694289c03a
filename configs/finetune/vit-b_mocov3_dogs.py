# tools/dist_train.sh configs/finetune/vit-b_mocov3_dogs.py 1
# full fine-tuning: no prompts, nothing frozen
# published: 81.19 % with another recipe (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (MMPretrain's for MAE), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3.py', '../_base_/datasets/dogs.py',
    '../_base_/schedules/finetune_100e.py', '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(num_prompts=0, frozen=False, drop_path_rate=0.1),
    head=dict(num_classes=120))
