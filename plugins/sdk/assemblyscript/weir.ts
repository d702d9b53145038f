// SPDX-License-Identifier: Apache-2.0

// SDK for plugins of weir/1 (plugins/ABI.md) in AssemblyScript. A plugin exports weir_abi_1 and weir_alloc from here, and hooks of its own:
//
//	export { weir_abi_1, weir_alloc } from "../weir/weir";
//	export function weir_request(at: usize, length: i32): u64 {
//	  const x = new Exchange(at, length);
//	  return Verdict.goOn().tag("model", x.model).answer();
//	}
//
// It is built without a garbage collector: each call begins in the state that weir_configure left, so that nothing need be freed.

/** Says that the module speaks weir/1; never called. */
export function weir_abi_1(): void {}

/** Gives room for what the host hands over. */
export function weir_alloc(size: i32): usize {
  return heap.alloc(<usize>size);
}

/** Bytes in memory. */
export class Bytes {
  constructor(public at: usize, public length: i32) {}

  text(): string {
    return String.UTF8.decodeUnsafe(this.at, this.length);
  }

  number(): i64 {
    return this.length == 8 ? load<i64>(this.at) : 0;
  }
}

/** A message: fields with tags. What is cut off is not read. */
export class Fields extends Bytes {
  all(tag: u32): Bytes[] {
    const out: Bytes[] = [];
    const end = this.at + <usize>this.length;
    let p = this.at;
    while (end - p >= 8) {
      const t = load<u32>(p), n = load<u32>(p + 4);
      p += 8;
      if (<usize>n > end - p) break;
      if (t == tag) out.push(new Bytes(p, <i32>n));
      p += <usize>n;
    }
    return out;
  }

  first(tag: u32): Bytes {
    const all = this.all(tag);
    return all.length > 0 ? all[0] : new Bytes(0, 0);
  }

  /** A message within this one; an empty one if there is none. */
  message(tag: u32): Fields {
    const b = this.first(tag);
    return new Fields(b.at, b.length);
  }

  /** The messages of a list. */
  list(tag: u32): Fields[] {
    return this.all(tag).map<Fields>((b) => new Fields(b.at, b.length));
  }
}

/** A text that a verdict may edit. */
export class Text {
  constructor(public id: i64, public text: string) {}
}

/** A turn of the conversation. */
export class Message {
  constructor(public fields: Fields) {}

  get role(): string { return this.fields.first(1).text(); }

  get texts(): Text[] {
    return this.fields.list(3).map<Text>((t) => new Text(t.first(1).number(), t.first(2).text()));
  }
}

/** What requests and events have in common. */
export class Given extends Fields {
  get id(): string { return this.first(1).text(); }
  get tenant(): i64 { return this.first(2).number(); }
  get tenantName(): string { return this.first(3).text(); }
  get key(): i64 { return this.first(4).number(); }
  get keyName(): string { return this.first(5).text(); }
  get address(): string { return this.first(6).text(); }
  get operation(): string { return this.first(7).text(); }
  get model(): string { return this.first(8).text(); }
  /** What the verdict before gave. */
  get state(): Bytes { return this.first(18); }

  /** The value of a header that the operator chose; empty if there is none. */
  header(name: string): string {
    const all = this.list(13);
    for (let i = 0; i < all.length; i++) {
      if (all[i].first(1).text() == name) return all[i].first(2).text();
    }
    return "";
  }
}

/** A request. */
export class Exchange extends Given {
  get stream(): bool { return this.first(9).number() == 1; }
  /** What the client asked for; 0 if it did not. */
  get maxOutputTokens(): i64 { return this.first(11).number(); }
  /** How many answers the client makes the model write. */
  get choices(): i64 { return max<i64>(1, this.first(19).number()); }
  get messages(): Message[] { return this.list(14).map<Message>((m) => new Message(m)); }
  get channels(): string[] { return this.all(16).map<string>((c) => c.text()); }
  get body(): Bytes { return this.first(17); }

  /** The texts of all messages. */
  get texts(): Text[] {
    const out: Text[] = [];
    const messages = this.messages;
    for (let i = 0; i < messages.length; i++) {
      const texts = messages[i].texts;
      for (let j = 0; j < texts.length; j++) out.push(texts[j]);
    }
    return out;
  }
}

/** A part of a response: plugins/ABI.md, section 5. */
export class Event extends Given {
  get kind(): i64 { return this.first(32).number(); }
  get choice(): i64 { return this.first(33).number(); }
  /** What is new in the text, or in the arguments of a call. */
  get added(): string { return this.first(34).text(); }
  /** Which text of the choice it is, with kinds 2 and 4: content, refusal, reasoning or summary. A host that does not say leaves it empty. */
  get part(): string { return this.message(39).first(1).text(); }
  /** The number of the text among those of its name in the choice. */
  get partNumber(): i64 { return this.message(39).first(2).number(); }
  /** The number of the tool call in the choice, with kind 3. */
  get tool(): i64 { return this.message(35).first(1).number(); }
  /** The id of the tool call, with the first of its events. */
  get toolID(): string { return this.message(35).first(2).text(); }
  /** The name of the tool, with the first event of a call. */
  get toolName(): string { return this.message(35).first(3).text(); }
  get status(): i64 { return this.first(36).number(); }
  get reason(): string { return this.first(37).text(); }
}

/** What a plugin answers. */
export class Verdict {
  private b: Array<u8> = [];

  /** Goes on; what is added changes the request or the event. */
  static goOn(): Verdict { return new Verdict(); }

  /** Refuses the request, or ends the response. */
  static deny(status: i32, code: string, message: string): Verdict {
    const denial = new Verdict().num(1, status).str(2, code).str(3, message);
    return new Verdict().num(1, 1).nest(2, denial);
  }

  /** Takes an event out of the stream (text and tool calls). */
  static drop(): Verdict { return new Verdict().num(1, 2); }

  /** Puts a text in the place of the characters from start to end of another, counted as indexOf and length count them. */
  replace(t: Text, start: i32, end: i32, text: string): Verdict {
    return this.edit(t.id, String.UTF8.byteLength(t.text.substring(0, start)), String.UTF8.byteLength(t.text.substring(0, end)), text);
  }
  /** The same, counted in bytes of UTF-8. The text of an event has id 0. */
  edit(id: i64, start: i64, end: i64, text: string): Verdict {
    return this.nest(3, new Verdict().num(1, id).num(2, start).num(3, end).str(4, text));
  }
  setHeader(name: string, value: string): Verdict { return this.nest(4, new Verdict().str(1, name).str(2, value)); }
  removeHeader(name: string): Verdict { return this.str(5, name); }
  model(name: string): Verdict { return this.str(6, name); }
  channel(name: string): Verdict { return this.str(7, name); }
  tag(name: string, value: string): Verdict { return this.nest(8, new Verdict().str(1, name).str(2, value)); }
  state(state: string): Verdict { return this.str(9, state); }
  insert(before: i64, role: string, text: string): Verdict {
    return this.nest(10, new Verdict().num(1, before).str(2, role).str(3, text));
  }
  maxOutputTokens(most: i64): Verdict { return this.num(11, most); }

  /** The verdict as a hook returns it. */
  answer(): u64 { return answer(this.b.dataStart, this.b.length); }

  private raw(tag: u32, at: usize, length: i32): Verdict {
    const b = this.b, from = b.length;
    b.length = from + 8 + length;
    const to = b.dataStart + <usize>from;
    store<u32>(to, tag);
    store<u32>(to + 4, <u32>length);
    memory.copy(to + 8, at, <usize>length);
    return this;
  }
  private num(tag: u32, n: i64): Verdict {
    const b = new StaticArray<i64>(1);
    b[0] = n;
    return this.raw(tag, changetype<usize>(b), 8);
  }
  private str(tag: u32, s: string): Verdict {
    const utf8 = String.UTF8.encode(s);
    return this.raw(tag, changetype<usize>(utf8), utf8.byteLength);
  }
  private nest(tag: u32, v: Verdict): Verdict { return this.raw(tag, v.b.dataStart, v.b.length); }
}

function answer(at: usize, length: i32): u64 {
  return length == 0 ? 0 : (<u64>at << 32) | <u64>length;
}

/** What weir_configure returns: nothing if the configuration is taken, or a sentence that says what is wrong with it. */
export function configured(complaint: string): u64 {
  const utf8 = String.UTF8.encode(complaint);
  return answer(changetype<usize>(utf8), utf8.byteLength);
}

@external("weir", "log") declare function hostLog(level: i32, at: usize, length: i32): void;
@external("weir", "now") declare function hostNow(): i64;
@external("weir", "tokens") declare function hostTokens(): i64;
@external("weir", "json") declare function hostJSON(text: usize, length: i32, path: usize, pathLength: i32): i64;
@external("weir", "count") declare function hostCount(name: usize, length: i32, delta: i64, window: i64): i64;

/** Logs a line: level 0 debug, 1 info, 2 warn, 3 error. It needs the capability log. */
export function log(level: i32, line: string): void {
  const utf8 = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(utf8), utf8.byteLength);
}

/** Nanoseconds since 1970, the same for the whole call. It needs the capability clock. */
export function now(): i64 { return hostNow(); }

/** An estimate of the tokens of the request's input. It needs the capability tokens. */
export function inputTokens(): i64 { return hostTokens(); }

/** A value in a JSON text, as it stands there, by a path such as words.0; null if there is none. It needs the capability json. */
export function json(text: Bytes, path: string): Bytes | null {
  const utf8 = String.UTF8.encode(path);
  const r = hostJSON(text.at, text.length, changetype<usize>(utf8), utf8.byteLength);
  return r < 0 ? null : new Bytes(text.at + <usize>(r >> 32), <i32>r);
}

/** A string in a JSON text, without its quotes and escapes; null if there is none. It needs the capability json. */
export function jsonString(text: Bytes, path: string): string | null {
  const value = json(text, path);
  if (value == null || value.length < 2 || load<u8>(value.at) != 0x22) return null;
  const s = new Bytes(value.at + 1, value.length - 2).text();
  let out = "", from = 0;
  for (let i = s.indexOf("\\"); i >= 0; i = s.indexOf("\\", from)) {
    out += s.substring(from, i);
    const c = s.charAt(i + 1);
    from = i + 2;
    if (c == "u") {
      out += String.fromCharCode(<i32>parseInt(s.substring(from, from + 4), 16));
      from += 4;
    } else if (c == "b") out += "\b";
    else if (c == "f") out += "\f";
    else if (c == "n") out += "\n";
    else if (c == "r") out += "\r";
    else if (c == "t") out += "\t";
    else out += c;
  }
  return out + s.substring(from);
}

/** Adds to a counter of this tenant and returns its new value; i64.MIN_VALUE: there is no room for another. It needs the capability counters. */
export function count(name: string, delta: i64, window: i64): i64 {
  const utf8 = String.UTF8.encode(name);
  return hostCount(changetype<usize>(utf8), utf8.byteLength, delta, window);
}
