-- SPDX-License-Identifier: Apache-2.0
--
-- The tap: looks at a response as it passes and keeps the bytes of its last usage object in dynamic metadata, from where the
-- access log takes them. It buffers nothing: of a chunk that ends within a usage object, or within a line that may be the usage
-- chunk of a stream whose client did not ask for one, it keeps that end until the next chunk, and no more than HOLD bytes.
--
-- In:  metadata weir.tap   id     the exchange, for x-weir-exchange-id
--                          strip  drop the chunk that only carries usage: the client did not ask for it
-- Out: metadata weir.usage last   bytes that begin with the last usage object of the response; what follows it is noise
--
-- Objects do not survive a yield: metadata is fetched anew in the loop.

local find, sub, byte = string.find, string.sub, string.byte

local HOLD = 65536 -- bytes of an unfinished line that may be kept back
local KEEP = 4096 -- bytes of a usage object that are kept

-- A version 7 UUID for answers that Envoy gives by itself, when the processor could not name the exchange.
local seeded = false
local function uuid7(ms)
  if not seeded then
    math.randomseed((ms % 2147483648) + tonumber(sub(tostring({}), 10), 16) % 65521)
    seeded = true
  end
  local r = math.random
  return string.format("%08x-%04x-7%03x-%04x-%06x%06x", math.floor(ms / 65536), ms % 65536, r(0, 4095), r(32768, 49151),
    r(0, 16777215), r(0, 16777215))
end

-- usage returns where the value of the last usage object in b begins, or nil. A usage that is null or a number is none.
local function usage(b)
  local at, from = nil, 1
  while true do
    local _, e = find(b, '"usage"', from, true)
    if not e then return at end
    from = e + 1
    local c = byte(b, from)
    if c == 58 and byte(b, from + 1) == 123 then -- the usual spelling: "usage":{
      at = from + 1
    else
      local _, v = find(b, "^%s*:%s*{", from)
      if v then at = v end
    end
  end
end

-- unfinished says whether a usage object that begins at i may go on in the next chunk, or one may begin there.
local function open_object(b, i)
  local depth, p = 0, i
  while true do
    p = find(b, '[{}"]', p)
    if not p then return true end
    local c = byte(b, p)
    if c == 123 then depth = depth + 1
    elseif c == 125 then
      depth = depth - 1
      if depth == 0 then return false end
    else -- a string; usage objects hold none with escapes, and a wrong guess only keeps more bytes
      p = find(b, '"', p + 1, true)
      if not p then return true end
    end
    p = p + 1
  end
end

local function keep(handle, b, i)
  handle:streamInfo():dynamicMetadata():set("weir.usage", "last", sub(b, i, i + KEEP))
end

-- tap watches chunks that are passed on as they are.
local function tap(handle)
  local tail = ""
  for chunk in handle:bodyChunks() do
    local n = chunk:length()
    if n > 0 then
      local b = tail .. chunk:getBytes(0, n)
      local i = usage(b)
      if i then keep(handle, b, i) end
      if i and #b - i < KEEP and open_object(b, i) then
        tail = sub(b, i - 16 > 0 and i - 16 or 1)
        local k = find(tail, '"usage"', 1, true)
        if k then tail = sub(tail, k) else tail = '"usage":' .. sub(b, i) end
      else
        tail = sub(b, -24) -- room for the key, blanks and the brace
        if i then
          local k = find(tail, '"usage"', 1, true)
          if k and usage(sub(tail, k)) then tail = "" end -- already kept
        end
      end
    end
  end
end

-- bare says whether a line is the usage chunk: a usage object, and no choice.
local function bare(line)
  return usage(line) and find(line, '"choices"%s*:%s*%[%s*%]')
end

-- maybe says whether an unfinished line may become the usage chunk.
local function maybe(line)
  return (find(line, "^data:%s*{") or find("data: {", line, 1, true) == 1)
    and not find(line, '"choices":[{', 1, true) and not find(line, '"delta"', 1, true)
end

-- strip watches chunks too, and takes the usage chunk out, with the blank line behind it.
local function strip(handle)
  local held, skip = "", false
  for chunk in handle:bodyChunks() do
    local n = chunk:length()
    if n > 0 then
      local b = held .. chunk:getBytes(0, n)
      local out, changed, from = {}, held ~= "", 1
      held = ""
      while from <= #b do
        local e = find(b, "\n", from, true)
        if not e then
          local rest = sub(b, from)
          if maybe(rest) and #rest < HOLD then
            held, changed = rest, true
          else
            out[#out + 1] = rest
            skip = false
          end
          break
        end
        local line = sub(b, from, e)
        from = e + 1
        if skip and (line == "\n" or line == "\r\n") then
          changed, skip = true, false
        else
          skip = false
          local i = find(line, '"usage"', 1, true) and usage(line)
          if i then
            keep(handle, line, i)
            if bare(line) then skip, changed = true, true end
          end
          if not skip then out[#out + 1] = line end
        end
      end
      if changed then chunk:setBytes(table.concat(out)) end
    end
  end
end

function envoy_on_response(handle)
  local meta = handle:streamInfo():dynamicMetadata():get("weir.tap")
  local headers = handle:headers()
  if not meta then -- a refusal, or Envoy's own answer without a decision
    if not headers:get("x-weir-exchange-id") then headers:add("x-weir-exchange-id", uuid7(handle:timestamp())) end
    return
  end
  headers:replace("x-weir-exchange-id", meta.id)
  if headers:get(":status") ~= "200" then return end
  local kind = headers:get("content-type") or ""
  if meta.strip and find(kind, "text/event-stream", 1, true) then
    headers:remove("content-length")
    strip(handle)
  else
    tap(handle)
  end
end
