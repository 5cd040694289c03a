# tools/dist_train.sh configs/spt/vit-b_mae_flowers17.py 1
# any data set with list files `<path> <label>` looks like this; published accuracy: not found; not yet run here
_base_ = [
    '../_base_/models/vit-b_mae.py', '../_base_/datasets/flowers17.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=17))
