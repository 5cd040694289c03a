# tools/dist_train.sh configs/spt/vit-b_mae_vtab_smallnorb_azi.py 1
# SPT-Deep, 20 prompts a block, on VTAB-1k's SmallNORB-Azi (Structured)
# published accuracy: not found
# rate and decays: default (MAE's on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/vtab/smallnorb_azi.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=18))
