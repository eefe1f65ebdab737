-- From now on nothing of a dead node is taken in this application. Behind time.lua.
--
-- KEYS  the nodes of the application (presence.lua)
-- ARGV  the dead node, and for how many ms the dead are fenced
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
  local since = string.match(nodes[i + 1], '^dead (%d+)$')
  if since and tonumber(since) < now - ARGV[2] then
    redis.call('HDEL', KEYS[1], nodes[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], 'dead ' .. text(now))
