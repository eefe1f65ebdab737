-- Sessions of one node are no longer present. Those that are another's by now stay. Behind presence.lua.
--
-- ARGV  for each: session, and a name for the announcement ('': there is none)
-- Returns  'fenced', or 'done'
if not isAdmitted() then
  return 'fenced'
end
for i = lastTopic + 1, #ARGV, 2 do
  local session, name = ARGV[i], ARGV[i + 1]
  local owner, id = find(session)
  if owner == node then
    remove(session, id, name ~= '' and name or nil)
  else
    redis.call('SREM', index, session .. ' ' .. channel)
  end
end
return 'done'
