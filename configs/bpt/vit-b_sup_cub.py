# tools/dist_train.sh configs/bpt/vit-b_sup_cub.py 1
# BPT-Deep, 50 prompts of rank 25 a block, on CUB-200-2011
# published accuracy: not found
# rate, decays and rank: default (published for BPT-Shallow; of this variant not found), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_sup_bpt.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/bpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(backbone=dict(prompts=dict(rank=25)), head=dict(num_classes=200))

optim_wrapper = dict(optimizer=dict(lr=5e-3, weight_decay=0.1), paramwise_cfg=dict(head_decay=10.0))
