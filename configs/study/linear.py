# the study's linear probe: no prompts
_base_ = './spt.py'

model = dict(backbone=dict(num_prompts=0))
