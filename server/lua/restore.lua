-- Makes sessions present again after this host lost them. Nothing is announced, since nobody was told
-- that they were gone; but for those whose id left meanwhile. Behind presence.lua.
--
-- ARGV  for how many ms others may still be doing the same; then for each: session, id, entry, and a
--       name for the announcement
-- Returns  'fenced', or 'done'
if not isAdmitted() then
  return 'fenced'
end
redis.call('SET', healing, '1', 'PX', ARGV[lastTopic + 1])
for i = lastTopic + 2, #ARGV, 4 do
  local session, id, entry, name = unpack(ARGV, i, i + 3)
  local owner, before = find(session)
  -- What is there may be older than what was lost.
  if before and before ~= id then
    remove(session, before)
  end
  if before ~= id then
    add(session, id)
  elseif owner ~= node then
    redis.call('HSET', sessions, session, node .. ' ' .. id)
    redis.call('SADD', index, session .. ' ' .. channel)
  end
  local known = redis.call('HGET', members, id)
  if not known then
    setMember(id, entry)
    if redis.call('SREM', left, id .. ' ' .. channel) == 1 then
      announce(name, '{"subscribe":{' .. entry .. '}}')
    end
  elseif redis.call('HGET', counts, id) == '1' then
    setMember(id, entry, known)
  end
end
return 'done'
