# Resisc45 (Specialized): 1,000 training and 6,300 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=45)
train_dataloader = dict(dataset=dict(task='resisc45'))
test_dataloader = dict(dataset=dict(task='resisc45'))
