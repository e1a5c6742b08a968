"""``neuro-latent doctor``: faults of an installation and a model repository that a server does not report itself.

Nothing here changes anything; ``docs/doctor.md`` lists every finding.
"""
