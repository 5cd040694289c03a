# everything trains, by MMPretrain's fine-tuning of MAE: AdamW, rates that fall by 0.65 a block towards the input, 5
# epochs of warm-up; its rate 2e-3 for batch 1,024 is 6.25e-5 for 32. Default, not searched
_base_ = './spt_100e.py'

optim_wrapper = dict(
    _delete_=True,
    constructor='LearningRateDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=6.25e-5, weight_decay=0.05, betas=(0.9, 0.999)),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        custom_keys={
            '.ln': dict(decay_mult=0.),
            '.bias': dict(decay_mult=0.),
            '.cls_token': dict(decay_mult=0.),
            '.pos_embed': dict(decay_mult=0.),
        }))

param_scheduler = dict(warmup=5)
