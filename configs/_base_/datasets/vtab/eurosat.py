# EuroSAT (Specialized): 1,000 training and 5,400 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(task='eurosat'))
test_dataloader = dict(dataset=dict(task='eurosat'))
