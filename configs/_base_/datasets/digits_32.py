# the digits at 32 x 32 pixels, drawn out from 8 x 8: for networks that were pre-trained on small photographs
_base_ = './digits.py'

test_pipeline = [dict(type='Resize', scale=32, interpolation='bicubic'), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.8, 1.0), interpolation='bicubic'),
    dict(type='PackInputs'),
]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
