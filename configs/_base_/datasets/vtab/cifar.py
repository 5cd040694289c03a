# CIFAR-100 (Natural): 1,000 training and 10,000 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(task='cifar'))
test_dataloader = dict(dataset=dict(task='cifar'))
