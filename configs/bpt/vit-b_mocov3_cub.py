# tools/dist_train.sh configs/bpt/vit-b_mocov3_cub.py 1
# BPT-Deep, 50 prompts of rank 50 a block, on CUB-200-2011
# published: 85.28 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (published for BPT-Shallow), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3_bpt.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/bpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))

optim_wrapper = dict(paramwise_cfg=dict(head_decay=0.1))
