-- SPDX-License-Identifier: Apache-2.0
--
-- Runs in the upstream filter chain of one channel's cluster, once per attempt: puts the channel's base path in the place of
-- /v1 and, where the provider knows the model by another name, that name into the body. The processor says in metadata where
-- the model's value stands, so no JSON is read here.
--
-- CLUSTER and BASE are set in front of this source.

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if BASE ~= "/v1" and string.sub(path, 1, 3) == "/v1" then
    headers:replace(":path", BASE .. string.sub(path, 4))
  end
  local model = handle:streamInfo():dynamicMetadata():get("weir")
  model = model and model.model
  local name = model and model[CLUSTER]
  if not name then return end
  local body = handle:body()
  local n = body:length()
  local from, to = model.at[1], model.at[2]
  local size = body:setBytes(body:getBytes(0, from) .. name .. body:getBytes(to, n - to))
  headers:replace("content-length", tostring(size))
end
