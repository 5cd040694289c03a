# tools/dist_train.sh configs/bpt/vit-b_mae_dogs.py 1
# BPT-Deep, 50 prompts of rank 50 a block, on Stanford Dogs
# published: 82.67 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: published (github.com/WangYZ1608/BPT at 2f1ca0c, script/MAE-IN1K); not yet run here
_base_ = [
    '../_base_/models/vit-b_mae_bpt.py', '../_base_/datasets/dogs.py',
    '../_base_/schedules/bpt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=120))

optim_wrapper = dict(paramwise_cfg=dict(head_decay=0.1))
