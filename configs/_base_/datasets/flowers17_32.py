# the same photographs at 32 x 32 pixels, read by the training process itself: for small networks on a CPU
_base_ = './flowers17.py'

small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32, interpolation='bicubic')]
train_pipeline = [*small, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [*small, dict(type='PackInputs')]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
