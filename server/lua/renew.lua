-- Renews the lease of one node on this host, and says how all nodes stand. Behind time.lua.
--
-- KEYS  leases (when each runs out), dead (since when), leaving, unclean, and since when leases are kept
-- ARGV  the node, how long its lease lasts in ms, '1' if it leaves, when this host renewed its lease
--       last if it still must have that lease, else '0', and how long the dead are remembered
-- Returns  'fenced' when the node was declared dead; else the time, and four lists: the leases (each
--          node, and when its lease runs out), the leaving, the dead (each node, since when), the unclean
local leases, dead, leaving, unclean, since = unpack(KEYS)
local node = ARGV[1]
if redis.call('ZSCORE', dead, node) then
  return 'fenced'
end
local begun = redis.call('GET', since)
if begun and not redis.call('ZSCORE', leases, node) and tonumber(begun) <= tonumber(ARGV[4]) then
  -- Leases go with their nodes only: this one was declared dead so long ago that it is forgotten.
  return 'fenced'
end
if not begun then
  redis.call('SET', since, text(now))
end
redis.call('ZADD', leases, text(now + ARGV[2]), node)
redis.call(ARGV[3] == '1' and 'SADD' or 'SREM', leaving, node)
for _, forgotten in ipairs(redis.call('ZRANGEBYSCORE', dead, '-inf', text(now - ARGV[5]))) do
  if redis.call('SISMEMBER', unclean, forgotten) == 0 then
    redis.call('ZREM', dead, forgotten)
  end
end
return {
  text(now),
  redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES'),
  redis.call('SMEMBERS', leaving),
  redis.call('ZRANGE', dead, 0, -1, 'WITHSCORES'),
  redis.call('SMEMBERS', unclean),
}
