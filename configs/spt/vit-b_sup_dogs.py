# tools/dist_train.sh configs/spt/vit-b_sup_dogs.py 1
# SPT-Deep, 20 prompts a block, on Stanford Dogs
# published accuracy: not found
# rate and decays: published (README of the authors' code, github.com/WangYZ1608/Self-Prompt-Tuning)
# not yet run here
_base_ = [
    '../_base_/models/vit-b_sup.py', '../_base_/datasets/dogs.py',
    '../_base_/schedules/spt_100e_sup.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=120))
