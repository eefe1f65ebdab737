-- A node no longer has a session that another one took over, unless it has it again.
--
-- KEYS  sessions of the channel, and what the node has in this application (presence.lua)
-- ARGV  the node, the session, the channel
local value = redis.call('HGET', KEYS[1], ARGV[2])
if not value or string.match(value, '^%S+') ~= ARGV[1] then
  redis.call('SREM', KEYS[2], ARGV[2] .. ' ' .. ARGV[3])
end
