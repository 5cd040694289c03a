# the study's SPT-Shallow: prompts before the first block alone
_base_ = './spt.py'

model = dict(backbone=dict(prompt_type='shallow'))
