"""Training and tuning of codecs.

- `loop` - the training loop with discriminators, averages and checkpoints
- `train` - training of a codec: `train_codec`
- `settings` - settings of the recipes that train and tune codecs
- `crops` - random crops of corpora
- `augment` - random level and phase
- `feed` - the crops of each step, drawn ahead by other processes
- `trainable` - one interface to train codecs, and the STFT codec and DAC behind it
- `trainable_encodec` - EnCodec behind it
- `trainable_mimi` - the decoder of Mimi behind it
- `trainable_continuous` - the STFT codec without a quantizer behind it
- `trainable_offline` - the decoder of a codec with an offline quantizer behind it
- `offline_settings` - settings of the recipe that fits offline quantizers
- `architectures` - the architectures that can be trained, by name
- `phases` - what trains at which step, and the learning rate
- `adversary` - the discriminators' part of a step
- `balancer` - EnCodec's balancer of gradients
- `adversarial_losses` - least-squares, hinge and feature losses
- `discriminators` - discriminators of DAC and EnCodec
- `idempotence` - the idempotence losses of Code Drift
- `tuning` - tuning of a codec: `tune_codec`
- `ablation` - an ablation of drift: `run_ablation`
- `ablation_settings` - its settings, conditions and cells
- `ablation_table` - its table and plot
- `variable_ablation` - an ablation of the variable bitrate: `run_variable_ablation`
- `sweep` - choice of an idempotence loss's weight
- `card` - facts about a codec's training, for its card
- `validation` - scores of held-out audio
"""
