# Stanford Cars: 8,144 training images (7,329 + 815) and 8,041 test images; the official files in data/stanford_cars
_base_ = './fgvc.py'

data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(type='mmspt.StanfordCars', data_root='data/stanford_cars'))
test_dataloader = dict(dataset=dict(type='mmspt.StanfordCars', data_root='data/stanford_cars'))
