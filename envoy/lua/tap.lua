-- SPDX-License-Identifier: Apache-2.0
--
-- The tap: looks at a response as it passes and keeps the bytes of its last usage object in dynamic metadata, from where the
-- access log takes them. It buffers nothing: it remembers the end of a chunk in which a usage object, or its key, may be cut
-- in two, and holds back only a line that may become the usage chunk of a stream whose client did not ask for one.
--
-- In:  metadata weir.tap    id     the exchange, for x-weir-exchange-id; without it nobody admitted this request
--                           strip  take out the chunk that only carries usage: the client did not ask for it
--                           headers for the client, as lines "name: value": what is left of its limits
-- Out: metadata weir.usage  last   bytes that begin with the last whole usage object of the response, or with one that was cut if there is
--                                  no whole one; what follows it is noise
-- envoy/native does the same in C, for the Envoys that Weir starts itself. What one learns, the other must: a test compares them.
--
-- Objects do not survive a yield: metadata is fetched anew in the loops, and headers behind the wait for a body.

local find, sub, byte = string.find, string.sub, string.byte

local HOLD = 65536 -- bytes of an unfinished line that may be held back
local KEEP = 4096 -- bytes that are kept from the beginning of a usage object
local KEY = 24 -- bytes in which a cut key, blanks and a brace have room

-- usage returns where the key and the value of the last usage object in b begin, and the value before, or nil. null, as OpenAI sends it with every
-- other chunk, is no object; the text of a message cannot match, since a quote within a string has a backslash before it.
local function usage(b)
  local key, value, before
  local from = 1
  while true do
    local s, e = find(b, '"usage"', from, true)
    if not s then return key, value, before end
    from = e + 1
    local c, d = byte(b, from, from + 1)
    if c == 58 and d == 123 then -- :{
      key, value, before = s, from + 1, value
    elseif c ~= 58 or d ~= 110 then -- not :null
      local _, v = find(b, "^%s*:%s*{", from)
      if v then key, value, before = s, v, value end
    end
  end
end

-- finish returns where the object that begins at p ends, or nil if it goes on behind the end of b. What a string holds does not count.
local function finish(b, p)
  local depth = 0
  while true do
    p = find(b, '["{}]', p)
    if not p then return nil end
    local c = byte(b, p)
    if c == 34 then
      repeat
        p = find(b, '["\\]', p + 1)
        if not p then return nil end
        c = byte(b, p)
        if c == 92 then p = p + 1 end
      until c == 34
    else
      depth = depth + (c == 123 and 1 or -1)
      if depth == 0 then return p end
    end
    p = p + 1
  end
end

-- keep keeps the object that begins at value; if that is cut, the one before, or what was kept before. It returns whether a whole one is kept now.
local function keep(handle, b, value, before, whole)
  local last = finish(b, value)
  last = last and last - value < KEEP and last
  if not last and before then
    local end_before = finish(b, before)
    if end_before and end_before < value then value, last = before, end_before end
  end
  if last or not whole then
    handle:streamInfo():dynamicMetadata():set("weir.usage", "last", sub(b, value, last or value + KEEP - 1))
  end
  return last and true or whole
end

-- tap watches chunks that pass unchanged.
local function tap(handle)
  local tail, whole = "", false
  for chunk in handle:bodyChunks() do
    local n = chunk:length()
    if n > 0 then
      local b = chunk:getBytes(0, n)
      if tail ~= "" then b = tail .. b end
      local key, value, before = usage(b)
      if value then
        whole = keep(handle, b, value, before, whole)
        if #b - key < KEEP and not finish(b, value) then
          tail = sub(b, key)
        else
          tail = sub(b, -KEY)
        end
      elseif byte(b, -1) == 10 then -- the end of a line, as of every event: no key is cut here
        tail = ""
      else
        tail = sub(b, -KEY)
      end
    end
  end
end

-- may_be says whether a line, or the beginning of one, may be the usage chunk. A line that is none is never held: what an
-- unlucky provider sends as its last words without a line's end must not be lost.
local function may_be(line)
  if #line < 7 then return sub("data: {", 1, #line) == line or sub("data:{", 1, #line) == line end
  return find(line, "^data: ?{") and not find(line, '"choices":[{', 1, true)
end

-- strip watches chunks too, and takes the usage chunk out, with the blank line behind it.
local function strip(handle)
  local held, whole = "", false
  local blank, middle = false, false -- what comes is behind the line that was taken out, or within one that was let on
  for chunk in handle:bodyChunks() do
    local n = chunk:length()
    if n > 0 then
      local b = chunk:getBytes(0, n)
      if held ~= "" then b = held .. b end
      if not blank and byte(b, -1) == 10 and not usage(b) then
        if held ~= "" then
          chunk:setBytes(b)
          held = ""
        end
        middle = false
      else
        local out, from = {}, 1
        held = ""
        while from <= #b do
          local e = find(b, "\n", from, true)
          local line = sub(b, from, e or #b)
          from = from + #line
          if middle then
            middle = not e
            local _, value, before = usage(line)
            if value then whole = keep(handle, line, value, before, whole) end
            out[#out + 1] = line
          elseif blank and line == "\r" then
            held = line -- until it is known whether its line feed follows
          elseif blank and (line == "\n" or line == "\r\n") then
            blank = false
          elseif not e and #line < HOLD and may_be(line) then
            blank = false
            held = line
          else
            blank, middle = false, not e
            local _, value, before = usage(line)
            if value then
              whole = keep(handle, line, value, before, whole)
              blank = #line <= HOLD and may_be(line) and find(line, '"choices"%s*:%s*%[%s*%]') ~= nil
            end
            if not blank then out[#out + 1] = line end
          end
        end
        chunk:setBytes(table.concat(out))
      end
    end
  end
  local _, value, before = usage(held) -- a provider that ends without a line's end; its last words cannot be sent from here
  if value then keep(handle, held, value, before, whole) end
end

-- uuid7 names answers that Envoy gives by itself when no processor could.
local seeded = false
local function uuid7(ms)
  local r = math.random
  if not seeded then
    math.randomseed(ms % 2147483648 + (tonumber(sub(tostring({}), 8)) or 0) % 2147483648)
    seeded = true
  end
  return string.format("%08x-%04x-7%03x-%04x-%06x%06x", math.floor(ms / 65536), ms % 65536, r(0, 4095), r(32768, 49151),
    r(0, 16777215), r(0, 16777215))
end

-- A provider that refuses the channel's credential says so to the operator, in the log; the client's own key is fine.
local REFUSED = '{"error":{"message":"The provider refused the gateway\'s credential for this model. The operator of the '
  .. 'gateway has to mend it.","type":"server_error","param":null,"code":"upstream_auth_failed"}}'

function envoy_on_response(handle)
  local headers = handle:headers()
  local meta = handle:streamInfo():dynamicMetadata():get("weir.tap")
  if not meta then -- a refusal, or Envoy's own answer
    if not headers:get("x-weir-exchange-id") then
      headers:add("x-weir-exchange-id", uuid7(handle:timestamp()))
    end
    return
  end
  headers:replace("x-weir-exchange-id", meta.id)
  if meta.headers then
    for name, value in string.gmatch(meta.headers, "([^:\n]+): ([^\n]*)\n") do headers:replace(name, value) end
  end
  local status = headers:get(":status")
  if status == "200" then
    if meta.strip and find(headers:get("content-type") or "", "text/event-stream", 1, true) then
      headers:remove("content-length") -- some providers send one on event streams; it would be wrong now
      strip(handle)
    else
      tap(handle)
    end
  elseif status == "401" or status == "403" then
    local size = handle:body(true):setBytes(REFUSED)
    headers = handle:headers()
    headers:replace(":status", "502")
    headers:replace("content-type", "application/json")
    headers:remove("content-encoding")
    headers:replace("content-length", tostring(size))
  end
end
