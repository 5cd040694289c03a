# Stanford Dogs: 12,000 training images (10,800 + 1,200) and 8,580 test images; the official archives unpacked in
# data/stanford_dogs
_base_ = './fgvc.py'

data_preprocessor = dict(num_classes=120)
train_dataloader = dict(dataset=dict(type='mmspt.StanfordDogs', data_root='data/stanford_dogs'))
test_dataloader = dict(dataset=dict(type='mmspt.StanfordDogs', data_root='data/stanford_dogs'))
