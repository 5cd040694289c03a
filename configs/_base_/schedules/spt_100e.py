# the authors' recipe: prompts start as a random sample of the task's own tokens; AdamW, 100 epochs, global batch 32;
# rate set every iteration; decay by parameter kind: none for biases and 1-d parameters, 0.01 for prompts, 0.5 for the
# head's weight. Rate and decays are those published for MAE on CUB
custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.RandomSampleInit'))]

optim_wrapper = dict(
    constructor='mmspt.TrainableOnlyOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-2, weight_decay=0.01),
    paramwise_cfg=dict(bias_decay_mult=0., flat_decay_mult=0., head_decay=0.5))

param_scheduler = dict(
    type='mmspt.WarmupCosineLR', warmup=10, eta_min=1e-8, by_epoch=True, convert_to_iter_based=True)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)

# the global batch that rate and epochs were chosen for: the tools divide it among the processes. With --auto-scale-lr
# each process reads as many, and the rate is scaled
auto_scale_lr = dict(base_batch_size=32)
