# tools/dist_train.sh configs/bpt/vit-b_mocov3_cars.py 1
# BPT-Deep, 50 prompts of rank 50 a block, on Stanford Cars
# published: 86.43 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (MoCo-v3's on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3_bpt.py', '../_base_/datasets/cars.py',
    '../_base_/schedules/bpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=196))

optim_wrapper = dict(paramwise_cfg=dict(head_decay=0.1))
