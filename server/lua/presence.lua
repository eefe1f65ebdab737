-- What the scripts of presence share: who is on one channel, and what is said of it. Behind say.lua.
--
-- All ids of members are JSON texts, as they stand in lists: so any text can be one.
--
-- KEYS  1 the sequence of the application
--       2 its nodes: the generation of each node's last connection; 'dead …' for those that are fenced
--       3 members of the channel: id → how it stands in lists, `"<id>":{…}`
--       4 sessions: session → its node, a space, its id
--       5 counts: id → how many sessions it has; `length` → characters of all in the list, each with
--         its comma
--       6 what the node has in this application: session, a space, the channel
--       7 there for a while after data were lost
--       8 who left in that time: id, a space, the channel
-- ARGV  1 the node whose sessions they are
--       2 the generation of its connection; 'cleaner' when others clean up behind it
--       3 the channel
--       4 how many topics there are; then the topics; then what differs
local sequence, nodes, members, sessions, counts, index, healing, left = unpack(KEYS)
local node, generation, channel = ARGV[1], ARGV[2], ARGV[3]
local lastTopic = 4 + ARGV[4]
local rememberLeftMs = 60000

-- What was sent on a connection that was given up may arrive behind what came by the next.
local function isAdmitted()
  if generation == 'cleaner' then
    return true
  end
  local known = redis.call('HGET', nodes, node)
  if known == generation then
    return true
  end
  if known and (string.sub(known, 1, 4) == 'dead' or tonumber(known) > tonumber(generation)) then
    return false
  end
  redis.call('HSET', nodes, node, generation)
  return true
end

-- UTF-16 units, as the servers count characters.
local function lengthOf(text)
  local _, following = string.gsub(text, '[\128-\191]', '')
  local _, doubled = string.gsub(text, '[\240-\247]', '')
  return #text - following + doubled
end

local function announce(publication, data)
  local message = publication .. ' ' .. channel .. ' ' .. lengthOf(data) .. ' membership\n' .. data
  say(sequence, message, ARGV, 5, lastTopic)
end

-- Returns node and id of a session; nothing when it is not present.
local function find(session)
  local value = redis.call('HGET', sessions, session)
  if value then
    return string.match(value, '^(%S+) (.*)$')
  end
end

-- Counts a session for an id; whether the id is a member is to be seen to beside it.
local function add(session, id)
  redis.call('HSET', sessions, session, node .. ' ' .. id)
  redis.call('SADD', index, session .. ' ' .. channel)
  redis.call('HINCRBY', counts, id, 1)
end

local function setMember(id, entry, before)
  redis.call('HSET', members, id, entry)
  local growth = lengthOf(entry) + 1
  if before then
    growth = growth - lengthOf(before) - 1
  end
  redis.call('HINCRBY', counts, 'length', growth)
end

-- publication  how to name the announcement; nothing: there is none
local function remove(session, id, publication)
  redis.call('HDEL', sessions, session)
  redis.call('SREM', index, session .. ' ' .. channel)
  if redis.call('HINCRBY', counts, id, -1) > 0 then
    return
  end
  local entry = redis.call('HGET', members, id)
  redis.call('HDEL', members, id)
  redis.call('HDEL', counts, id)
  if redis.call('HLEN', members) == 0 then
    redis.call('DEL', counts)
  elseif entry then
    redis.call('HINCRBY', counts, 'length', -lengthOf(entry) - 1)
  end
  if not publication then
    return
  end
  if redis.call('EXISTS', healing) == 1 then
    redis.call('SADD', left, id .. ' ' .. channel)
    redis.call('PEXPIRE', left, rememberLeftMs)
  end
  announce(publication, '{"unsubscribe":{' .. id .. ':null}}')
end
