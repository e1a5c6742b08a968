"""``neuro-latent doctor``: what is wrong with an installation and a model repository, and how to mend it.

A module a group of checks. Nothing here changes anything; :mod:`catalogue` names all that can be found.
"""
