# the same at 64 x 64 pixels; the recipe's backbone needs img_size=64
_base_ = './flowers17_area_32.py'

small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=64, interpolation='area')]
train_dataloader = dict(dataset=dict(pipeline=[*small, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(pipeline=[*small, dict(type='PackInputs')]))
test_dataloader = val_dataloader
