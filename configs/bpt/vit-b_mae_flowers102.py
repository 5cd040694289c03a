# tools/dist_train.sh configs/bpt/vit-b_mae_flowers102.py 1
# BPT-Deep, 50 prompts of rank 50 a block, on Oxford Flowers 102
# published: 93.72 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (published for BPT-Shallow), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae_bpt.py', '../_base_/datasets/flowers102.py',
    '../_base_/schedules/bpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=102))

optim_wrapper = dict(optimizer=dict(lr=0.1), paramwise_cfg=dict(head_decay=1.0))
