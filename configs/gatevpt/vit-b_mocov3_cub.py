# tools/dist_train.sh configs/gatevpt/vit-b_mocov3_cub.py 1
# GateVPT, 100 shallow prompts behind gates, on CUB-200-2011
# published: 82.86 % (the BPT paper's poster, arXiv 2506.22908); 83.00 %, the mean of the 5 tasks (arXiv 2306.05067)
# rate and decay: default (the authors' for MAE on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3_gated.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/gatevpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))

train_dataloader = dict(batch_size=64)
