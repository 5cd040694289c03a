# SUN397 (Natural): 1,000 training and 21,750 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=397)
train_dataloader = dict(dataset=dict(task='sun397'))
test_dataloader = dict(dataset=dict(task='sun397'))
