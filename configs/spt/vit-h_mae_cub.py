# tools/dist_train.sh configs/spt/vit-h_mae_cub.py 1
# SPT-Deep, 20 prompts a block, on CUB-200-2011 with ViT-Huge
# published accuracy: not found
# rate and decays: default (ViT-B's), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-h_mae.py', '../_base_/datasets/cub.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))
