# the same with the rate and the head's decay that were published for the supervised ViT on Stanford Dogs
_base_ = './spt_100e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(head_decay=3.0))
