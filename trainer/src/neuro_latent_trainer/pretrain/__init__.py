"""Pre-training of the small backbones of ``models/neuro-latent-mini``.

One stage a module, in the order in which they run::

    tokenizer.py   corpus -> byte-level BPE, one for the encoder and one for the generator
    tokens.py      corpus -> token ids on disk (memory-mapped), split into training and held-out
    tasks.py       token ids -> training examples (masked LM; span corruption, continuation, expansion)
    models.py      the two small configurations, built from scratch
    loop.py        the optimizer, the schedule, checkpoints, the resumable loop
    publish.py     checkpoints -> a folder in hub format, in half precision
    select.py      prompt pairs -> those that the embedded adapter is trained on
    cli.py         one sub-command a stage
"""
