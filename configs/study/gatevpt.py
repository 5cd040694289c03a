# the study's GateVPT: gated shallow prompts, SGD
_base_ = './vpt_shallow.py'

model = dict(backbone=dict(prompts=dict(type='mmspt.GatedPrompts'), prompt_drop_rate=0.1))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=0.),
    paramwise_cfg=dict(head_decay=None))
search_space = ['lr=0.03,0.1,0.3,1,3,10']
