# the study's full fine-tuning: no prompts, nothing frozen; rates fall by 0.65 a block towards the input
_base_ = './linear.py'

model = dict(backbone=dict(frozen=False))

optim_wrapper = dict(
    _delete_=True,
    constructor='LearningRateDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999)),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        custom_keys={
            '.ln': dict(decay_mult=0.),
            '.bias': dict(decay_mult=0.),
            '.cls_token': dict(decay_mult=0.),
            '.pos_embed': dict(decay_mult=0.),
        }))
search_space = ['lr=1e-4,3e-4,1e-3,3e-3,0.01,0.03']
# what is trained is the whole network, so checkpoints hold it
default_hooks = dict(checkpoint=dict(save_frozen=True))
