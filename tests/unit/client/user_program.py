"""A user's program that calls everything the client has; mypy --strict must have nothing to say about it."""

from neuro_latent_client import (
    AsyncClient,
    Client,
    Feedback,
    Health,
    NeuroLatentError,
    Optimization,
    Piece,
    Progress,
    ServedAdapter,
    ServedModel,
    TlsConfig,
)


def connect(url: str) -> Client:
    return Client(
        url,
        timeout=10.0,
        retries=2,
        headers={"X-Tenant": "seven"},
        api_key="secret",
        tls=TlsConfig(ca="ca.pem", certificate="client.pem", key="client.key"),
    )


def report(progress: Progress) -> None:
    print(f"{progress.done}/{progress.total}")


def texts(outcomes: list[Optimization | NeuroLatentError]) -> list[str]:
    return [str(outcome) if isinstance(outcome, NeuroLatentError) else outcome.text for outcome in outcomes]


def use(client: Client) -> None:
    answer: Optimization = client.optimize("Create a function", max_length=64, temperature=0.5, seed=7, timeout=5.0)
    facts: tuple[str, float, str, int, bool, str] = (
        answer.text,
        answer.score,
        answer.finish_reason,
        answer.generated_tokens,
        answer.truncated,
        answer.request_id,
    )
    print(facts, answer.elapsed_ms, answer.first_piece_ms)
    print(texts(client.optimize_many(["a", "b"], concurrency=2, on_progress=report, seed=7)))
    pieces: list[Piece] = []
    with client.stream("Create a function", deadline_ms=500) as stream:
        pieces.extend(stream)
    result: Optimization = stream.result
    feedback: Feedback = client.feedback(result, 1, edited_prompt="Write a typed Python function.", user="ann")
    client.feedback(answer.request_id, -1, raw_prompt="x", enhanced_prompt="y", idempotency_key=feedback.feedback_id)
    health: Health = client.health()
    models: tuple[ServedModel, ...] = client.models()
    adapters: tuple[ServedAdapter, ...] = client.adapters()
    client.load_adapters(timeout=30.0)
    print(health.ready, [model.name for model in models], [adapter.version for adapter in adapters])
    print(result.to_dict()["model_version"], client.optimize("Create a function", adapter="team").text)


async def use_async(client: AsyncClient) -> None:
    async with client:
        answer: Optimization = await client.optimize("Create a function", max_length=64)
        print(texts(await client.optimize_many(["a", "b"], concurrency=2, on_progress=report)))
        async with client.stream("Create a function") as stream:
            async for piece in stream:
                print(piece.text, end="")
        result: Optimization = stream.result
        feedback: Feedback = await client.feedback(result, 1, comment="good")
        health: Health = await client.health()
        models: tuple[ServedModel, ...] = await client.models()
        await client.load_adapters()
        print((await client.adapters())[0].to_dict())
        print(answer.text, feedback.created, health.ready, [model.version for model in models])
