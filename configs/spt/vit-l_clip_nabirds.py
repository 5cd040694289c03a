# tools/dist_train.sh configs/spt/vit-l_clip_nabirds.py 1
# SPT-Deep, 20 prompts a block, on NABirds; the head reads CLS
# published accuracy: not found
# rate and decays: default (the rate chosen on a part of CUB), not searched; not yet run here
_base_ = [
    '../_base_/models/vit-l_clip.py', '../_base_/datasets/nabirds.py',
    '../_base_/schedules/spt_100e_hub.py', '../_base_/default_runtime.py'
]

data_preprocessor = dict(mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323])  # CLIP's

model = dict(head=dict(num_classes=555))
