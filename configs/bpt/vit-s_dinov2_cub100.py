# python tools/train.py configs/bpt/vit-s_dinov2_cub100.py
_base_ = [
    '../_base_/models/vit-s_dinov2_focus.py', '../_base_/datasets/cub100_112.py', '../_base_/schedules/bpt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(img_size=112, prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50),
    head=dict(num_classes=100))
