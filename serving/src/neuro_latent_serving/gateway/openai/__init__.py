"""An OpenAI-compatible server: answers with better prompts, or passes requests on with a better prompt in them.

prompt.py    where the user's last text stands in a request, and when nothing is to be added to it
upstream.py  the server that requests go on to: time budget, breaker, headers, streams
answers.py   enhanced prompts as chat completions and responses
routes.py    ``/v1/chat/completions``, ``/v1/responses``, ``/v1/models`` and the rest of ``/v1``
"""
