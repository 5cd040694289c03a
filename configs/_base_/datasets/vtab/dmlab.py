# DMLab (Structured): 1,000 training and 22,735 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=6)
train_dataloader = dict(dataset=dict(task='dmlab'))
test_dataloader = dict(dataset=dict(task='dmlab'))
