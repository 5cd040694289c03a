# tools/dist_train.sh configs/spt/vit-b_mae_vtab_diabetic_retinopathy.py 1
# SPT-Deep, 20 prompts a block, on VTAB-1k's Diabetic Retinopathy (Specialized)
# published accuracy: not found
# rate and decays: default (MAE's on CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/vtab/diabetic_retinopathy.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=5))
