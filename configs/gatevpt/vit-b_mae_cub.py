# tools/dist_train.sh configs/gatevpt/vit-b_mae_cub.py 1
# GateVPT, 100 shallow prompts behind gates, on CUB-200-2011
# published: 70.56 % (the BPT paper's poster, arXiv 2506.22908); 73.39 %, the mean of the 5 tasks (arXiv 2306.05067)
# batch, rate, decay, dropout, number of prompts and start of the gates are published (README of the authors' code,
# github.com/ryongithub/GatedPromptTuning at 038d462), optimizer and schedule are VPT's; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae_gated.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/gatevpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))

train_dataloader = dict(batch_size=64)
