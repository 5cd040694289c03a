# the same at 64 x 64 pixels; the recipe's backbone needs img_size=64
_base_ = './flowers17.py'

small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=64, interpolation='area')]
train_pipeline = [*small, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [*small, dict(type='PackInputs')]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
