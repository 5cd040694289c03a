# tools/dist_train.sh configs/spt/vit-b_mae_cub.py 1
# SPT-Deep, 20 prompts a block, on CUB-200-2011
# published: 80.26 / 80.39 / 79.74 % over three seeds, with this rate and these decays (README of the authors' code,
# github.com/WangYZ1608/Self-Prompt-Tuning); not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))
