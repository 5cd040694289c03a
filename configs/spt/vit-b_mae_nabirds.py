# tools/dist_train.sh configs/spt/vit-b_mae_nabirds.py 1
# SPT-Deep, 20 prompts a block, on NABirds
# published: 76.28 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (MAE's on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/nabirds.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=555))
