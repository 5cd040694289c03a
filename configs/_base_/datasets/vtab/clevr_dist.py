# Clevr-Dist (Structured): 1,000 training and 15,000 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=6)
train_dataloader = dict(dataset=dict(task='clevr_dist'))
test_dataloader = dict(dataset=dict(task='clevr_dist'))
