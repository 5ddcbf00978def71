"""Asks through OpenAI's SDK, in an environment of its own, and writes down what came back and when.

    python sdk_client.py JOB.json OUT.json

JOB.json: {"base_url", "form": "decisions" or "chat", "model", "labels", "texts", "clients"}: so many requests
are out at a time, over kept connections, each text once. OUT.json: [{"ms", "answer", "variant"}, ...] in the
order of the texts; "variant" is what the reply's headers say, if anything.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

INSTRUCTIONS = "Which intent is this?"
VARIANT = "x-sluice-variant"
WARM = 20


async def ask_decision(client: AsyncOpenAI, job: dict[str, Any], text: str) -> tuple[str | None, str]:
    """Return the choice of a decision endpoint, and the variant that made it."""
    choices = [{"value": label} for label in job["labels"]]
    question = {"type": "choice", "name": "intent", "instructions": INSTRUCTIONS, "choices": choices}
    raw = await client.decisions.with_raw_response.create(
        model=job["model"], input=text, questions=[question]
    )
    found = raw.parse()
    answer = found.answers[0]
    return getattr(answer, "choice", None), raw.headers.get(VARIANT, "")


async def ask_chat(client: AsyncOpenAI, job: dict[str, Any], text: str) -> tuple[str | None, str]:
    """Return the label that a chat model was held to by a JSON schema."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": job["labels"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    found = await client.chat.completions.create(
        model=job["model"],
        messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    )
    return json.loads(found.choices[0].message.content)["label"], ""


async def run(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask for every text, `clients` at a time."""
    ask = {"decisions": ask_decision, "chat": ask_chat}[job["form"]]
    found: list[dict[str, Any]] = [{} for _ in job["texts"]]
    client = AsyncOpenAI(base_url=job["base_url"], api_key="none", max_retries=0, timeout=30)
    todo = iter(enumerate(job["texts"]))

    async def work() -> None:
        for place, text in todo:
            started = time.perf_counter()
            answer, variant = await ask(client, job, text)
            taken = 1000 * (time.perf_counter() - started)
            found[place] = {"ms": taken, "answer": answer, "variant": variant}

    async with client:
        for text in job["texts"][:WARM]:
            await ask(client, job, text)
        await asyncio.gather(*(work() for _ in range(job["clients"])))
    return found


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_text(json.dumps(asyncio.run(run(told))), encoding="utf-8")
