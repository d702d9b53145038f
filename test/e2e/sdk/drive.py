#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives a gateway with the official openai package, and says what the package saw.

    WEIR_BASE_URL=http://127.0.0.1:10000/v1 WEIR_KEY=sk-… WEIR_KEY_LIMITED=sk-… WEIR_KEY_SPENT=sk-… \\
        python3 drive.py [CASE…]

Runs every case, or those named, against the fake provider behind a gateway, and prints one JSON object per line for each:

    case         its name, the same in the Node driver
    ok           whether all that it claims held
    error        what did not hold; null when ok
    exchange_id  x-weir-exchange-id of the answer, also of an error; null without a gateway
    status       HTTP status
    stream       whether it asked for a stream
    events       events that the package handed out; 0 for JSON
    usage        what the package saw, as {"input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"}, or null

Exits with 1 when a case fails, with 2 when it is used wrongly. Environment:

    WEIR_BASE_URL     with /v1
    WEIR_KEY          may use every model
    WEIR_KEY_LIMITED  may not use gpt-4o-mini
    WEIR_KEY_SPENT    may make one request a minute, and has made it
    WEIR_NO_GATEWAY   1: WEIR_BASE_URL is the fake provider itself. There are no exchange ids, and no limited keys

The case error_429 comes last, since a gateway may rest a channel after it for a second.
"""

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass, field

import openai

MODEL = "gpt-4o-mini"
REASONING_MODEL = "o3-mini"
COMPLETION_MODEL = "gpt-3.5-turbo-instruct"
EMBEDDING_MODEL = "text-embedding-3-small"

NO_GATEWAY = os.environ.get("WEIR_NO_GATEWAY") == "1"
UUID_V7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

HELLO = [{"role": "user", "content": "hello there"}]
LONG = [{"role": "user", "content": "many words " * 600}]  # long enough that the provider has it in its cache
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
}
RESPONSE_TOOL = {
    "type": "function", "name": "weather", "strict": False,
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
}


class Claim(Exception):
    """Something that a case claims does not hold."""


def claim(holds, message):
    """Fails the case unless the claim holds."""
    if not holds:
        raise Claim(message)


@dataclass
class Seen:
    """What the package saw of one case."""

    stream: bool = False
    events: int = 0
    usage: dict | None = None
    status: int | None = None
    exchange_id: str | None = None
    chunks: list = field(default_factory=list)

    def answered(self, response):
        """Takes what the head of a response says. It must name the exchange if there is a gateway."""
        self.status = response.status_code
        self.exchange_id = response.headers.get("x-weir-exchange-id")
        if not NO_GATEWAY:
            claim(self.exchange_id and UUID_V7.fullmatch(self.exchange_id), f"x-weir-exchange-id is {self.exchange_id!r}")

    def parse(self, raw):
        """Takes a raw response, and returns what the package makes of it."""
        self.answered(raw.http_response)
        return raw.parse()

    def read(self, raw):
        """Reads a stream to its end."""
        self.stream = True
        for chunk in self.parse(raw):
            self.chunks.append(chunk)
            self.events += 1
        return self.chunks

    def billed(self, usage):
        """Takes the usage of any operation."""
        claim(usage is not None, "no usage")
        got = usage.to_dict()
        inputs = got.get("prompt_tokens_details") or got.get("input_tokens_details") or {}
        outputs = got.get("completion_tokens_details") or got.get("output_tokens_details") or {}
        self.usage = {
            "input_tokens": got.get("prompt_tokens", got.get("input_tokens")),
            "cached_input_tokens": inputs.get("cached_tokens", 0),
            "output_tokens": got.get("completion_tokens", got.get("output_tokens", 0)),
            "reasoning_tokens": outputs.get("reasoning_tokens", 0),
        }
        claim(got["total_tokens"] == self.usage["input_tokens"] + self.usage["output_tokens"], f"total of {got}")
        claim(self.usage["input_tokens"] > 0, "no input tokens")


def client(key="WEIR_KEY", kind=openai.OpenAI):
    """A client that shows its errors rather than trying again."""
    return kind(base_url=os.environ["WEIR_BASE_URL"], api_key=os.environ.get(key, key), max_retries=0, timeout=30)


def steer(**headers):
    """The x-fake-* headers that steer the fake provider."""
    return {"extra_headers": {"x-fake-" + name.replace("_", "-"): str(v) for name, v in headers.items()}}


def chat(key="WEIR_KEY", **params):
    """A chat, by default a short one; returns the raw response."""
    return client(key).chat.completions.with_raw_response.create(**{"model": MODEL, "messages": HELLO, **params})


def texts(chunks):
    """The pieces of content in a streamed chat."""
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


# --- chat ---

def case_chat(seen):
    done = seen.parse(chat(**steer(tokens=12)))
    seen.billed(done.usage)
    claim(seen.usage["output_tokens"] == 12, f"output tokens: {seen.usage}")
    choice = done.choices[0]
    claim(len(choice.message.content.split()) == 12 and choice.finish_reason == "stop", f"choice: {choice}")


def case_chat_reasoning(seen):
    done = seen.parse(chat(model=REASONING_MODEL, messages=LONG, max_completion_tokens=8))
    seen.billed(done.usage)
    claim(seen.usage["cached_input_tokens"] > 0 and seen.usage["reasoning_tokens"] > 0, f"usage: {seen.usage}")
    claim(done.model.startswith("o"), f"model: {done.model}")


def case_chat_choices(seen):
    done = seen.parse(chat(n=3, **steer(tokens=4)))
    seen.billed(done.usage)
    claim([c.index for c in done.choices] == [0, 1, 2] and seen.usage["output_tokens"] == 12, f"choices: {done.choices}")


def case_chat_stream(seen):
    chunks = seen.read(chat(stream=True, **steer(tokens=12)))
    claim(all(c.choices for c in chunks), "a chunk without choices, though the usage was not asked for")
    claim(all(c.usage is None for c in chunks), "a chunk with usage, though it was not asked for")
    claim(len(texts(chunks)) == 12, f"{len(texts(chunks))} pieces of content")
    claim(chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop", "first or last chunk")


def streamed_with_usage(seen, **params):
    chunks = seen.read(chat(stream=True, stream_options={"include_usage": True}, **params))
    claim([bool(c.choices) for c in chunks] == [True] * (len(chunks) - 1) + [False], "not one last chunk without choices")
    claim(all(c.usage is None for c in chunks[:-1]), "usage before the last chunk")
    seen.billed(chunks[-1].usage)
    return chunks


def case_chat_stream_usage(seen):
    chunks = streamed_with_usage(seen, **steer(tokens=12))
    claim(seen.usage["output_tokens"] == 12 == len(texts(chunks)), f"usage: {seen.usage}")


def case_chat_stream_reasoning(seen):
    streamed_with_usage(seen, model=REASONING_MODEL, messages=LONG, **steer(tokens=20))
    claim(seen.usage["cached_input_tokens"] > 0 and seen.usage["reasoning_tokens"] == 5, f"usage: {seen.usage}")


def case_chat_stream_frames(seen):
    chunks = streamed_with_usage(seen, **steer(tokens=12, frame=97, interval_ms=1))
    claim(len(texts(chunks)) == 12, f"{len(texts(chunks))} pieces of content")


def case_tools(seen):
    done = seen.parse(chat(tools=[CHAT_TOOL], **steer(tokens=6)))
    seen.billed(done.usage)
    choice = done.choices[0]
    claim(choice.finish_reason == "tool_calls" and choice.message.content is None, f"choice: {choice}")
    call = choice.message.tool_calls[0]
    claim(call.type == "function" and call.function.name == "weather", f"call: {call}")
    claim("text" in json.loads(call.function.arguments), f"arguments: {call.function.arguments}")


def case_tools_stream(seen):
    chunks = seen.read(chat(tools=[CHAT_TOOL], stream=True, **steer(tokens=6)))
    calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    claim(calls[0].function.name == "weather" and calls[0].id, f"first piece: {calls[0]}")
    claim("text" in json.loads("".join(c.function.arguments for c in calls)), "arguments are not JSON")
    claim(chunks[-1].choices[0].finish_reason == "tool_calls", f"last chunk: {chunks[-1]}")


def case_json_mode(seen):
    done = seen.parse(chat(response_format={"type": "json_object"}, **steer(tokens=6)))
    seen.billed(done.usage)
    claim(isinstance(json.loads(done.choices[0].message.content), dict), f"content: {done.choices[0].message.content}")


def case_vision(seen):
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    done = seen.parse(chat(messages=[{"role": "user", "content": parts}]))
    seen.billed(done.usage)
    claim(seen.usage["input_tokens"] > 255, f"the image is not counted: {seen.usage}")


def case_async_stream(seen):
    async def run():
        async with client(kind=openai.AsyncOpenAI) as c:
            raw = await c.chat.completions.with_raw_response.create(
                model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}, **steer(tokens=5))
            async for chunk in seen.parse(raw):
                seen.chunks.append(chunk)
                seen.events += 1

    seen.stream = True
    asyncio.run(run())
    seen.billed(seen.chunks[-1].usage)
    claim(len(texts(seen.chunks)) == 5, f"{len(texts(seen.chunks))} pieces of content")


def case_cancel(seen):
    seen.stream = True
    stream = seen.parse(chat(stream=True, **steer(tokens=2000, interval_ms=20)))
    for _ in stream:
        seen.events += 1
        if seen.events == 3:
            break
    stream.close()
    claim(seen.events == 3, f"{seen.events} events")


# --- embeddings, completions, responses, models ---

def case_embeddings(seen):
    raw = client().embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=["hello there", "good bye"])
    done = seen.parse(raw)
    seen.billed(done.usage)
    claim([d.index for d in done.data] == [0, 1], "not one embedding per input")
    claim(all(len(d.embedding) == 1536 and isinstance(d.embedding[0], float) for d in done.data), "not 1536 numbers")


def case_embeddings_float(seen):
    raw = client().embeddings.with_raw_response.create(
        model=EMBEDDING_MODEL, input="hello there", encoding_format="float", dimensions=8)
    done = seen.parse(raw)
    seen.billed(done.usage)
    claim(len(done.data[0].embedding) == 8 and isinstance(done.data[0].embedding[0], float), "not 8 numbers")


def complete(**params):
    return client().completions.with_raw_response.create(model=COMPLETION_MODEL, prompt="once upon a time", **params)


def case_completions(seen):
    done = seen.parse(complete(max_tokens=5))
    seen.billed(done.usage)
    claim(done.choices[0].finish_reason == "length" and seen.usage["output_tokens"] == 5, f"choice: {done.choices[0]}")


def case_completions_stream(seen):
    chunks = seen.read(complete(stream=True, **steer(tokens=7)))
    claim(all(c.choices and c.usage is None for c in chunks), "a chunk of usage, though it was not asked for")
    claim(len([c for c in chunks if c.choices[0].text]) == 7, f"{len(chunks)} chunks")


def case_completions_stream_usage(seen):
    chunks = seen.read(complete(stream=True, stream_options={"include_usage": True}, **steer(tokens=7)))
    claim([bool(c.choices) for c in chunks] == [True] * (len(chunks) - 1) + [False], "not one last chunk without choices")
    seen.billed(chunks[-1].usage)
    claim(seen.usage["output_tokens"] == 7, f"usage: {seen.usage}")


def respond(**params):
    return client().responses.with_raw_response.create(**{"model": REASONING_MODEL, "input": "hello there", **params})


def case_responses(seen):
    done = seen.parse(respond(instructions="be brief", **steer(tokens=8)))
    seen.billed(done.usage)
    claim(done.status == "completed" and len(done.output_text.split()) == 6, f"text: {done.output_text!r}")
    claim(seen.usage["reasoning_tokens"] == 2, f"usage: {seen.usage}")


def case_responses_stream(seen):
    events = seen.read(respond(stream=True, **steer(tokens=8)))
    claim([e.sequence_number for e in events] == list(range(len(events))), "sequence numbers")
    claim(events[0].type == "response.created" and events[-1].type == "response.completed", "first or last event")
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    claim(len(deltas) == 6 and "".join(deltas) == events[-1].response.output_text, f"deltas: {deltas}")
    seen.billed(events[-1].response.usage)


def case_responses_tools(seen):
    events = seen.read(respond(model=MODEL, stream=True, tools=[RESPONSE_TOOL], **steer(tokens=4)))
    call = events[-1].response.output[0]
    claim(call.type == "function_call" and call.name == "weather" and "text" in json.loads(call.arguments), f"call: {call}")
    seen.billed(events[-1].response.usage)


def case_models_list(seen):
    ids = [m.id for m in seen.parse(client().models.with_raw_response.list()).data]
    claim(MODEL in ids and REASONING_MODEL in ids, f"models: {ids}")


def case_models_retrieve(seen):
    done = seen.parse(client().models.with_raw_response.retrieve(MODEL))
    claim(done.id == MODEL and done.object == "model", f"model: {done}")


# --- errors, as the package's own exceptions ---

def refused(seen, kind, code, call):
    """Makes a call that must raise one of the package's exceptions; of a code in OpenAI's shape, unless it is None."""
    try:
        call()
    except openai.APIStatusError as e:
        seen.answered(e.response)
        claim(type(e) is kind, f"raised {type(e).__name__}: {e}")
        claim(isinstance(e.body, dict) and e.body.get("message") and e.type, f"not in OpenAI's shape: {e.body}")
        claim(code is None or e.code == code, f"code is {e.code!r}: {e}")
        return e
    raise Claim("nothing was raised")


def case_error_401(seen):
    refused(seen, openai.AuthenticationError, "invalid_api_key", lambda: chat(key="sk-not-a-key"))


def case_error_401_stream(seen):
    seen.stream = True
    refused(seen, openai.AuthenticationError, "invalid_api_key", lambda: chat(key="sk-not-a-key", stream=True))


def case_error_403(seen):
    if NO_GATEWAY:
        refused(seen, openai.PermissionDeniedError, None, lambda: chat(**steer(status=403)))
    else:
        refused(seen, openai.PermissionDeniedError, "model_not_allowed", lambda: chat(key="WEIR_KEY_LIMITED"))


def case_error_404(seen):
    refused(seen, openai.NotFoundError, "model_not_found", lambda: chat(model="no-such-model"))


def case_error_404_retrieve(seen):
    refused(seen, openai.NotFoundError, "model_not_found", lambda: client().models.retrieve("no-such-model"))


def case_error_400(seen):
    refused(seen, openai.BadRequestError, None, lambda: chat(**steer(status=400)))


def case_error_400_type(seen):
    refused(seen, openai.BadRequestError, None, lambda: chat(extra_body={"stream": "yes"}))


def case_error_429_limit(seen):
    if NO_GATEWAY:
        refused(seen, openai.RateLimitError, "rate_limit_exceeded", lambda: chat(**steer(status=429)))
        return
    e = refused(seen, openai.RateLimitError, "rate_limit_exceeded", lambda: chat(key="WEIR_KEY_SPENT"))
    headers = e.response.headers
    claim(e.type == "requests", f"type is {e.type!r}")
    claim(0 < int(headers["retry-after"]) <= 60, f"retry-after is {headers.get('retry-after')!r}")
    claim(0 < int(headers["retry-after-ms"]) <= 60_000, f"retry-after-ms is {headers.get('retry-after-ms')!r}")
    claim(headers["x-ratelimit-limit-requests"] == "1" and headers["x-ratelimit-remaining-requests"] == "0", f"headers: {headers}")


def case_error_429(seen):
    e = refused(seen, openai.RateLimitError, "rate_limit_exceeded", lambda: chat(**steer(status=429, retry_after=1)))
    claim(e.response.headers.get("retry-after") == "1", f"retry-after is {e.response.headers.get('retry-after')!r}")


CASES = {name.removeprefix("case_"): f for name, f in list(globals().items()) if name.startswith("case_")}


def run(name):
    """Runs one case and prints its line."""
    seen, error = Seen(), None
    try:
        CASES[name](seen)
    except Exception as e:  # a case may fail in any way, and the others still run
        error = f"{type(e).__name__}: {e}"
    print(json.dumps({
        "case": name, "ok": error is None, "exchange_id": seen.exchange_id, "status": seen.status, "stream": seen.stream,
        "events": seen.events, "usage": seen.usage, "error": error,
    }), flush=True)
    return error is None


def main(names):
    needed = ["WEIR_BASE_URL", "WEIR_KEY"] + ([] if NO_GATEWAY else ["WEIR_KEY_LIMITED", "WEIR_KEY_SPENT"])
    missing = [n for n in needed if not os.environ.get(n)]
    unknown = [n for n in names if n not in CASES]
    if missing or unknown:
        print(f"drive.py: not set: {missing}; unknown cases: {unknown}; there are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    return 0 if all([run(n) for n in names or CASES]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
