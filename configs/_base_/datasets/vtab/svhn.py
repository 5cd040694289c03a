# SVHN (Natural): 1,000 training and 26,032 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(task='svhn'))
test_dataloader = dict(dataset=dict(task='svhn'))
