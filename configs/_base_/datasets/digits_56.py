# the digits at 56 x 56 pixels, drawn out from 8 x 8, as the photographs of ImageNet are normalized
_base_ = './digits.py'

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
test_pipeline = [dict(type='Resize', scale=56, interpolation='bicubic'), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='RandomResizedCrop', scale=56, crop_ratio_range=(0.8, 1.0), interpolation='bicubic'),
    dict(type='PackInputs'),
]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
