# tools/dist_train.sh configs/spt/vit-b_dinov2_cars.py 1
# SPT-Deep, 20 prompts a block, on Stanford Cars; the head reads CLS
# published accuracy: not found
# rate and decays: default (the rate chosen on a part of CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-b_dinov2.py', '../_base_/datasets/cars.py',
    '../_base_/schedules/spt_100e_hub.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=196))
