# tools/dist_train.sh configs/spt/vit-b_mocov3_dogs.py 1
# SPT-Deep, 20 prompts a block, on Stanford Dogs
# published: 85.84 % (the BPT paper's poster, arXiv 2506.22908); 86.00 %, the mean of the 5 tasks (arXiv 2402.02382)
# rate and decays: default (MAE's on CUB; the authors' for MoCo-v3 were not published), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3.py', '../_base_/datasets/dogs.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=120))
