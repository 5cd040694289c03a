# Diabetic Retinopathy (Specialized): 1,000 training and 42,670 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=5)
train_dataloader = dict(dataset=dict(task='diabetic_retinopathy'))
test_dataloader = dict(dataset=dict(task='diabetic_retinopathy'))
