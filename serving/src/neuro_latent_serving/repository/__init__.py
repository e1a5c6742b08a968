"""An exported model repository, as serving reads it.

records.py  what is written beside each adapter's graph
check.py    whether the repository is complete
export.py   from a training run to a repository
"""
