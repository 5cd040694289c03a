# tools/dist_train.sh configs/spt/vit-b_mocov3_vtab_dsprites_loc.py 1
# SPT-Deep, 20 prompts a block, on VTAB-1k's dSprites-Loc (Structured)
# published accuracy: not found
# rate and decays: default (MAE's on CUB; the authors' for MoCo-v3 were not published), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3.py', '../_base_/datasets/vtab/dsprites_loc.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=16))
