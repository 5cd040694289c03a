# tools/dist_train.sh configs/spt/vit-b_mae_vtab_clevr_dist.py 1
# SPT-Deep, 20 prompts a block, on VTAB-1k's Clevr-Dist (Structured)
# published accuracy: not found
# rate and decays: default (MAE's on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/vtab/clevr_dist.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=6))
