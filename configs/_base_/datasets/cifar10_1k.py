# CIFAR-10 with 1,000 labelled images, as VTAB-1k has them: 800 to train on, 200 to choose on, the 10,000 test images to
# report. The lists beside this file were drawn once from the 50,000 training images, 80 and 20 a class, by
# numpy.random.default_rng(0): of each class in the order of the alphabet, the first hundred of a permutation
data_preprocessor = dict(num_classes=10, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)

classes = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
test_pipeline = [dict(type='mmspt.LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/cifar10',
        data_prefix='train',
        ann_file='{{ fileDirname }}/cifar10_1k/train.txt',
        metainfo=dict(classes=classes),
        pipeline=[
            dict(type='mmspt.LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]),
    sampler=dict(type='DefaultSampler', shuffle=True))

val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/cifar10',
        data_prefix='train',
        ann_file='{{ fileDirname }}/cifar10_1k/val.txt',
        metainfo=dict(classes=classes),
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Accuracy', topk=(1, ))
val_cfg = dict()

test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/cifar10',
        data_prefix='test',
        metainfo=dict(classes=classes),
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = val_evaluator
test_cfg = dict()
