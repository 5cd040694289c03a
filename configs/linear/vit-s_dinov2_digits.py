# python tools/train.py configs/linear/vit-s_dinov2_digits.py
# the same without prompts: a linear probe
_base_ = '../spt/vit-s_dinov2_digits.py'

model = dict(backbone=dict(num_prompts=0))
