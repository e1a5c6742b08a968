"""From what people say of answers to a better adapter: ``neuro-latent retrain``.

retrain_config.py     shares, rates and thresholds, in one frozen place
feedback.py           the rows of ``neuro-latent feedback export``, from a file or a database
feedback_examples.py  ratings become records to train on, and records to judge by
training_mix.py       which of them, and of the original data, are trained on and held out
decision.py           new against old on held-out rows
commands.py           other commands of this environment: the feedback's export, the promotion
retrain.py            one retraining in one folder, from the records to the decision
cli.py                ``neuro-latent retrain``
"""
