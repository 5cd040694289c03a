# python tools/train.py configs/linear/vit-xs_mae_digits.py
# the same without prompts: a linear probe
_base_ = '../spt/vit-xs_mae_digits.py'

model = dict(backbone=dict(num_prompts=0))
