# tools/dist_train.sh configs/spt/vit-l_dinov2_flowers102.py 1
# SPT-Deep, 20 prompts a block, on Oxford Flowers-102; the head reads CLS
# published accuracy: not found
# rate and decays: default (the rate chosen on a part of CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-l_dinov2.py', '../_base_/datasets/flowers102.py',
    '../_base_/schedules/spt_100e_hub.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=102))
