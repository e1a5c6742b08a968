"""The REST API and the page, in front of a Triton on this machine or elsewhere.

    config.py       its settings, which are its options too
    app.py          the application, and the routes of the REST API
    openai/         an OpenAI-compatible server, by itself or in front of another
    state.py        what the routes share
    streams.py      answers in pieces
    schemas.py      what they take and give
    problems.py     errors as RFC 9457 has them
    api_keys.py     API keys and rate limits
    middleware.py   request ids, logs, metrics, the limit of a body
    server.py       uvicorn on a thread
    cli.py          ``neuro-latent gateway`` and ``gateway-key``
    page.html       the page at /

Its dependencies come with the extra: ``pip install "neuro-latent-serving[gateway]"``.
"""
