// SPDX-License-Identifier: Apache-2.0

// Drives a gateway with the official openai package for Node, and prints one JSON object per case: see ../drive.py, whose
// cases, lines, environment and exit codes it has. WEIR_NODE_MODULES may name the node_modules directory that holds openai;
// without it the package is looked for as usual.

import { createRequire } from "node:module";
import { join } from "node:path";

const modules = process.env.WEIR_NODE_MODULES;
const load = createRequire(modules ? join(modules, "drive.mjs") : import.meta.url);
const OpenAI = load(modules ? join(modules, "openai") : "openai").default;

const MODEL = "gpt-4o-mini";
const REASONING_MODEL = "o3-mini";
const COMPLETION_MODEL = "gpt-3.5-turbo-instruct";
const EMBEDDING_MODEL = "text-embedding-3-small";

const NO_GATEWAY = process.env.WEIR_NO_GATEWAY === "1";
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const HELLO = [{ role: "user", content: "hello there" }];
const LONG = [{ role: "user", content: "many words ".repeat(600) }]; // long enough that the provider has it in its cache
const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PARAMETERS = { type: "object", properties: { text: { type: "string" } } };
const CHAT_TOOL = { type: "function", function: { name: "weather", parameters: PARAMETERS } };
const RESPONSE_TOOL = { type: "function", name: "weather", strict: false, parameters: PARAMETERS };

/** Fails the case unless the claim holds. */
function claim(holds, message) {
  if (!holds) throw new Error(typeof message === "string" ? message : JSON.stringify(message));
}

/** What the package saw of one case. */
class Seen {
  stream = false;
  events = 0;
  usage = null;
  status = null;
  exchange_id = null;

  /** Takes what the head of a response says. It must name the exchange if there is a gateway. */
  answered(status, headers) {
    this.status = status;
    this.exchange_id = headers.get("x-weir-exchange-id");
    if (!NO_GATEWAY) claim(UUID_V7.test(this.exchange_id ?? ""), `x-weir-exchange-id is ${this.exchange_id}`);
  }

  /** Awaits a call, and returns what the package makes of its response. */
  async parse(call) {
    const { data, response } = await call.withResponse();
    this.answered(response.status, response.headers);
    return data;
  }

  /** Reads a stream to its end. */
  async read(call) {
    this.stream = true;
    const chunks = [];
    for await (const chunk of await this.parse(call)) {
      chunks.push(chunk);
      this.events++;
    }
    return chunks;
  }

  /** Takes the usage of any operation. */
  billed(usage) {
    claim(usage, "no usage");
    const inputs = usage.prompt_tokens_details ?? usage.input_tokens_details ?? {};
    const outputs = usage.completion_tokens_details ?? usage.output_tokens_details ?? {};
    this.usage = {
      input_tokens: usage.prompt_tokens ?? usage.input_tokens,
      cached_input_tokens: inputs.cached_tokens ?? 0,
      output_tokens: usage.completion_tokens ?? usage.output_tokens ?? 0,
      reasoning_tokens: outputs.reasoning_tokens ?? 0,
    };
    claim(usage.total_tokens === this.usage.input_tokens + this.usage.output_tokens, usage);
    claim(this.usage.input_tokens > 0, "no input tokens");
  }
}

/** A client that shows its errors rather than trying again. */
function client(apiKey = process.env.WEIR_KEY) {
  return new OpenAI({ baseURL: process.env.WEIR_BASE_URL, apiKey, maxRetries: 0, timeout: 30_000 });
}

/** The x-fake-* headers that steer the fake provider. */
function steer(wanted) {
  return { headers: Object.fromEntries(Object.entries(wanted).map(([name, v]) => [`x-fake-${name}`, String(v)])) };
}

const chat = (params, steered, key) =>
  client(key).chat.completions.create({ model: MODEL, messages: HELLO, ...params }, steered && steer(steered));
const complete = (params, steered) =>
  client().completions.create({ model: COMPLETION_MODEL, prompt: "once upon a time", ...params }, steered && steer(steered));
const respond = (params, steered) =>
  client().responses.create({ model: REASONING_MODEL, input: "hello there", ...params }, steered && steer(steered));

/** The pieces of content in a streamed chat. */
const texts = (chunks) => chunks.map((c) => c.choices[0]?.delta.content).filter(Boolean);
const words = (text) => text.split(/\s+/).filter(Boolean).length;

/** Claims that exactly the last chunk has no choices, and bills the usage that it has. */
function usageLast(seen, chunks) {
  claim(chunks.every((c, i) => c.choices.length > 0 === i < chunks.length - 1), "not one last chunk without choices");
  claim(chunks.slice(0, -1).every((c) => !c.usage), "usage before the last chunk");
  seen.billed(chunks.at(-1).usage);
}

async function streamedWithUsage(seen, params, steered) {
  const chunks = await seen.read(chat({ stream: true, stream_options: { include_usage: true }, ...params }, steered));
  usageLast(seen, chunks);
  return chunks;
}

/** Makes a call that must reject with one of the package's exceptions; of a code in OpenAI's shape, unless it is null. */
async function refused(seen, kind, code, call) {
  let e;
  try {
    await call();
  } catch (thrown) {
    e = thrown;
  }
  claim(e, "nothing was thrown");
  if (!(e instanceof OpenAI.APIError) || !e.headers) throw e;
  seen.answered(e.status, e.headers);
  claim(e.constructor === kind, `threw ${e.constructor.name}: ${e.message}`);
  claim(e.error?.message && e.type, `not in OpenAI's shape: ${JSON.stringify(e.error)}`);
  claim(code === null || e.code === code, `code is ${e.code}: ${e.message}`);
  return e;
}

const CASES = {
  async chat(seen) {
    const done = await seen.parse(chat({}, { tokens: 12 }));
    seen.billed(done.usage);
    claim(seen.usage.output_tokens === 12, seen.usage);
    claim(words(done.choices[0].message.content) === 12 && done.choices[0].finish_reason === "stop", done.choices);
  },
  async chat_reasoning(seen) {
    const done = await seen.parse(chat({ model: REASONING_MODEL, messages: LONG, max_completion_tokens: 8 }));
    seen.billed(done.usage);
    claim(seen.usage.cached_input_tokens > 0 && seen.usage.reasoning_tokens > 0, seen.usage);
    claim(done.model.startsWith("o"), `model: ${done.model}`);
  },
  async chat_choices(seen) {
    const done = await seen.parse(chat({ n: 3 }, { tokens: 4 }));
    seen.billed(done.usage);
    claim(done.choices.map((c) => c.index).join() === "0,1,2" && seen.usage.output_tokens === 12, done.choices);
  },
  async chat_stream(seen) {
    const chunks = await seen.read(chat({ stream: true }, { tokens: 12 }));
    claim(chunks.every((c) => c.choices.length > 0), "a chunk without choices, though the usage was not asked for");
    claim(chunks.every((c) => !c.usage), "a chunk with usage, though it was not asked for");
    claim(texts(chunks).length === 12, `${texts(chunks).length} pieces of content`);
    claim(chunks[0].choices[0].delta.role === "assistant", "the first chunk has no role");
    claim(chunks.at(-1).choices[0].finish_reason === "stop", "the last chunk has no finish_reason");
  },
  async chat_stream_usage(seen) {
    const chunks = await streamedWithUsage(seen, {}, { tokens: 12 });
    claim(seen.usage.output_tokens === 12 && texts(chunks).length === 12, seen.usage);
  },
  async chat_stream_reasoning(seen) {
    await streamedWithUsage(seen, { model: REASONING_MODEL, messages: LONG }, { tokens: 20 });
    claim(seen.usage.cached_input_tokens > 0 && seen.usage.reasoning_tokens === 5, seen.usage);
  },
  async chat_stream_frames(seen) {
    const chunks = await streamedWithUsage(seen, {}, { tokens: 12, frame: 97, "interval-ms": 1 });
    claim(texts(chunks).length === 12, `${texts(chunks).length} pieces of content`);
  },
  async tools(seen) {
    const done = await seen.parse(chat({ tools: [CHAT_TOOL] }, { tokens: 6 }));
    seen.billed(done.usage);
    const [choice] = done.choices;
    claim(choice.finish_reason === "tool_calls" && choice.message.content === null, choice);
    claim(choice.message.tool_calls[0].function.name === "weather", choice);
    claim("text" in JSON.parse(choice.message.tool_calls[0].function.arguments), choice);
  },
  async tools_stream(seen) {
    const chunks = await seen.read(chat({ tools: [CHAT_TOOL], stream: true }, { tokens: 6 }));
    const calls = chunks.flatMap((c) => c.choices[0].delta.tool_calls ?? []);
    claim(calls[0].function.name === "weather" && calls[0].id, calls[0]);
    claim("text" in JSON.parse(calls.map((c) => c.function.arguments).join("")), "arguments are not JSON");
    claim(chunks.at(-1).choices[0].finish_reason === "tool_calls", chunks.at(-1));
  },
  async json_mode(seen) {
    const done = await seen.parse(chat({ response_format: { type: "json_object" } }, { tokens: 6 }));
    seen.billed(done.usage);
    claim(typeof JSON.parse(done.choices[0].message.content) === "object", done.choices[0]);
  },
  async vision(seen) {
    const content = [{ type: "text", text: "what is this?" }, { type: "image_url", image_url: { url: PIXEL } }];
    const done = await seen.parse(chat({ messages: [{ role: "user", content }] }));
    seen.billed(done.usage);
    claim(seen.usage.input_tokens > 255, `the image is not counted: ${JSON.stringify(seen.usage)}`);
  },
  async cancel(seen) {
    seen.stream = true;
    const stream = await seen.parse(chat({ stream: true }, { tokens: 2000, "interval-ms": 20 }));
    for await (const _ of stream) {
      if (++seen.events === 3) break;
    }
    stream.controller.abort();
    claim(seen.events === 3, `${seen.events} events`);
  },
  async embeddings(seen) {
    const done = await seen.parse(client().embeddings.create({ model: EMBEDDING_MODEL, input: ["hello there", "good bye"] }));
    seen.billed(done.usage);
    claim(done.data.map((d) => d.index).join() === "0,1", "not one embedding per input");
    claim(done.data.every((d) => d.embedding.length === 1536 && typeof d.embedding[0] === "number"), "not 1536 numbers");
  },
  async embeddings_float(seen) {
    const params = { model: EMBEDDING_MODEL, input: "hello there", encoding_format: "float", dimensions: 8 };
    const done = await seen.parse(client().embeddings.create(params));
    seen.billed(done.usage);
    claim(done.data[0].embedding.length === 8 && typeof done.data[0].embedding[0] === "number", "not 8 numbers");
  },
  async completions(seen) {
    const done = await seen.parse(complete({ max_tokens: 5 }));
    seen.billed(done.usage);
    claim(done.choices[0].finish_reason === "length" && seen.usage.output_tokens === 5, done.choices);
  },
  async completions_stream(seen) {
    const chunks = await seen.read(complete({ stream: true }, { tokens: 7 }));
    claim(chunks.every((c) => c.choices.length > 0 && !c.usage), "a chunk of usage, though it was not asked for");
    claim(chunks.filter((c) => c.choices[0].text).length === 7, `${chunks.length} chunks`);
  },
  async completions_stream_usage(seen) {
    const chunks = await seen.read(complete({ stream: true, stream_options: { include_usage: true } }, { tokens: 7 }));
    usageLast(seen, chunks);
    claim(seen.usage.output_tokens === 7, seen.usage);
  },
  async responses(seen) {
    const done = await seen.parse(respond({ instructions: "be brief" }, { tokens: 8 }));
    seen.billed(done.usage);
    claim(done.status === "completed" && words(done.output_text) === 6, done);
    claim(seen.usage.reasoning_tokens === 2, seen.usage);
  },
  async responses_stream(seen) {
    const events = await seen.read(respond({ stream: true }, { tokens: 8 }));
    claim(events.every((e, i) => e.sequence_number === i), "sequence numbers");
    claim(events[0].type === "response.created" && events.at(-1).type === "response.completed", "first or last event");
    const deltas = events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta);
    const { response } = events.at(-1);
    claim(deltas.length === 6 && deltas.join("") === response.output.at(-1).content[0].text, deltas);
    seen.billed(response.usage);
  },
  async responses_tools(seen) {
    const events = await seen.read(respond({ model: MODEL, stream: true, tools: [RESPONSE_TOOL] }, { tokens: 4 }));
    const { response } = events.at(-1);
    const [call] = response.output;
    claim(call.type === "function_call" && call.name === "weather" && "text" in JSON.parse(call.arguments), call);
    seen.billed(response.usage);
  },
  async models_list(seen) {
    const ids = (await seen.parse(client().models.list())).data.map((m) => m.id);
    claim(ids.includes(MODEL) && ids.includes(REASONING_MODEL), ids);
  },
  async models_retrieve(seen) {
    const done = await seen.parse(client().models.retrieve(MODEL));
    claim(done.id === MODEL && done.object === "model", done);
  },
  async error_401(seen) {
    await refused(seen, OpenAI.AuthenticationError, "invalid_api_key", () => chat({}, undefined, "sk-not-a-key"));
  },
  async error_401_stream(seen) {
    seen.stream = true;
    await refused(seen, OpenAI.AuthenticationError, "invalid_api_key", () => chat({ stream: true }, undefined, "sk-not-a-key"));
  },
  async error_403(seen) {
    if (NO_GATEWAY) return void (await refused(seen, OpenAI.PermissionDeniedError, null, () => chat({}, { status: 403 })));
    const call = () => chat({}, undefined, process.env.WEIR_KEY_LIMITED);
    await refused(seen, OpenAI.PermissionDeniedError, "model_not_allowed", call);
  },
  async error_404(seen) {
    await refused(seen, OpenAI.NotFoundError, "model_not_found", () => chat({ model: "no-such-model" }));
  },
  async error_404_retrieve(seen) {
    await refused(seen, OpenAI.NotFoundError, "model_not_found", () => client().models.retrieve("no-such-model"));
  },
  async error_400(seen) {
    await refused(seen, OpenAI.BadRequestError, null, () => chat({}, { status: 400 }));
  },
  async error_400_type(seen) {
    await refused(seen, OpenAI.BadRequestError, null, () => chat({ stream: "yes" }));
  },
  async error_429_limit(seen) {
    if (NO_GATEWAY) {
      return void (await refused(seen, OpenAI.RateLimitError, "rate_limit_exceeded", () => chat({}, { status: 429 })));
    }
    const call = () => chat({}, undefined, process.env.WEIR_KEY_SPENT);
    const { headers, type } = await refused(seen, OpenAI.RateLimitError, "rate_limit_exceeded", call);
    claim(type === "requests", `type is ${type}`);
    const [after, ms] = [Number(headers.get("retry-after")), Number(headers.get("retry-after-ms"))];
    claim(after > 0 && after <= 60 && ms > 0 && ms <= 60_000, `retry-after is ${after}, retry-after-ms ${ms}`);
    const [limit, left] = [headers.get("x-ratelimit-limit-requests"), headers.get("x-ratelimit-remaining-requests")];
    claim(limit === "1" && left === "0", `limit ${limit}, remaining ${left}`);
  },
  async error_429(seen) {
    const call = () => chat({}, { status: 429, "retry-after": 1 });
    const e = await refused(seen, OpenAI.RateLimitError, "rate_limit_exceeded", call);
    claim(e.headers.get("retry-after") === "1", `retry-after is ${e.headers.get("retry-after")}`);
  },
};

/** Runs one case and prints its line. */
async function run(name) {
  const seen = new Seen();
  let error = null;
  try {
    await CASES[name](seen);
  } catch (e) {
    error = `${e.constructor.name}: ${e.message}`;
  }
  const { exchange_id, status, stream, events, usage } = seen;
  console.log(JSON.stringify({ case: name, ok: error === null, exchange_id, status, stream, events, usage, error }));
  return error === null;
}

const names = process.argv.slice(2);
const needed = ["WEIR_BASE_URL", "WEIR_KEY", ...(NO_GATEWAY ? [] : ["WEIR_KEY_LIMITED", "WEIR_KEY_SPENT"])];
const missing = needed.filter((n) => !process.env[n]);
const unknown = names.filter((n) => !Object.hasOwn(CASES, n));
if (missing.length > 0 || unknown.length > 0) {
  console.error(`drive.mjs: not set: [${missing}]; unknown cases: [${unknown}]; there are: ${Object.keys(CASES).join(", ")}`);
  process.exit(2);
}
let ok = true;
for (const name of names.length > 0 ? names : Object.keys(CASES)) ok = (await run(name)) && ok;
process.exitCode = ok ? 0 : 1;
