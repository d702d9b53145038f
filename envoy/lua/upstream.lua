-- SPDX-License-Identifier: Apache-2.0
--
-- Runs in the upstream filter chain of one channel's cluster, once per attempt: puts the channel's base path in the place of
-- /v1 and, where the provider knows the model by another name, that name into the body. The processor says in metadata where
-- the model's value stands, so no JSON is read here.
--
-- Envoy has one set of request headers for all attempts of a request, and one body for each: what an earlier attempt has made of
-- the path and of the content-length is taken back here, from weir.attempt, where the first that changed them has kept them.
--
-- CLUSTER and BASE are set in front of this source.

function envoy_on_request(handle)
  local headers, meta = handle:headers(), handle:streamInfo():dynamicMetadata()
  local model, kept = meta:get("weir"), meta:get("weir.attempt")
  model = model and model.model
  local name = model and model[CLUSTER]
  local path = kept and kept.path or headers:get(":path")
  local length = kept and kept.length or headers:get("content-length")
  local own = path
  if BASE ~= "/v1" and string.sub(path, 1, 3) == "/v1" then own = BASE .. string.sub(path, 4) end
  if not kept and (name or own ~= path) then
    meta:set("weir.attempt", "path", path)
    if length then meta:set("weir.attempt", "length", length) end
  end
  if kept or own ~= path then headers:replace(":path", own) end
  if name then
    local body = handle:body()
    local n = body:length()
    local from, to = model.at[1], model.at[2]
    local size = body:setBytes(body:getBytes(0, from) .. name .. body:getBytes(to, n - to))
    headers:replace("content-length", tostring(size))
  elseif kept and length then
    headers:replace("content-length", length)
  elseif kept then
    headers:remove("content-length")
  end
end
