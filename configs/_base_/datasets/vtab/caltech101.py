# Caltech101 (Natural): 1,000 training and 6,084 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=102)
train_dataloader = dict(dataset=dict(task='caltech101'))
test_dataloader = dict(dataset=dict(task='caltech101'))
