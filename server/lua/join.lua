-- A session becomes present. Behind presence.lua.
--
-- ARGV  'join', or 'adopt': the session was present already, as far as its node knows; limits do not
--       count then, and nobody asks for the list
--       session, id, entry
--       members that there may be, characters that the list may have, and that this reply may have
--       names for the announcements of a leave and a join
-- Returns  'fenced', 'full' (members), 'long' (the list), 'tooLong' (for this reply), 'adopted', or epoch
--          and number, and the members as they stand in lists
if not isAdmitted() then
  return 'fenced'
end
local mode, session, id, entry, maxMembers, maxLength, allowed, leaveName, joinName =
  unpack(ARGV, lastTopic + 1)
local known = redis.call('HGET', members, id)
if mode == 'join' then
  if not known and redis.call('HLEN', members) >= tonumber(maxMembers) then
    return 'full'
  end
  local length = 1 + (redis.call('HGET', counts, 'length') or 0) + lengthOf(entry) + 1
  if known then
    length = length - lengthOf(known) - 1
  end
  if length > tonumber(maxLength) then
    return 'long'
  elseif length > tonumber(allowed) then
    return 'tooLong'
  end
end
local formerNode, formerId = find(session)
if formerId and formerId ~= id then
  remove(session, formerId, leaveName)
end
if formerId ~= id then
  add(session, id)
elseif formerNode ~= node then
  redis.call('HSET', sessions, session, node .. ' ' .. id)
  redis.call('SADD', index, session .. ' ' .. channel)
end
if not known then
  setMember(id, entry)
  announce(joinName, '{"subscribe":{' .. entry .. '}}')
elseif mode == 'join' then
  setMember(id, entry, known)
end
if mode == 'adopt' then
  return 'adopted'
end
local epoch = redis.call('HGET', sequence, 'epoch')
local position = epoch and epoch .. ' ' .. redis.call('HGET', sequence, 'count') or ''
return { position, redis.call('HVALS', members) }
