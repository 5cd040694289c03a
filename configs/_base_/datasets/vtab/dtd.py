# DTD (Natural): 1,000 training and 1,880 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=47)
train_dataloader = dict(dataset=dict(task='dtd'))
test_dataloader = dict(dataset=dict(task='dtd'))
