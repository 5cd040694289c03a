# the authors' recipe: AdamW, 100 epochs, global batch 32; rate set every iteration; decay by parameter kind:
# none for biases and 1-d parameters, 0.01 for prompts, 0.5 (= 50 * 0.01) for the head's weight
optim_wrapper = dict(
    constructor='mmspt.TrainableOnlyOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-2, weight_decay=0.01),
    paramwise_cfg=dict(
        bias_decay_mult=0.,
        flat_decay_mult=0.,
        custom_keys={'head.fc.weight': dict(decay_mult=50.)}))

param_scheduler = dict(
    type='mmspt.WarmupCosineLR', warmup=10, end=100, eta_min=1e-8, by_epoch=True, convert_to_iter_based=True)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()

# with --auto-scale-lr the rate follows the global batch: GPUs x train_dataloader.batch_size
auto_scale_lr = dict(base_batch_size=32)
