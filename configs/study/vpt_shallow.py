# the study's VPT-Shallow: prompts before the first block alone
_base_ = './vpt.py'

model = dict(backbone=dict(prompt_type='shallow'))
