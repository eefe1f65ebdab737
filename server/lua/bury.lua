-- Declares a node dead, on this host: from now on it is fenced, and what it kept is unclean until
-- somebody has cleaned it up. Harmless twice. Behind time.lua.
--
-- KEYS  leases, dead, leaving, unclean, and the applications of which the node keeps something here
-- ARGV  the node, and when it died; 'lapsed': now, unless its lease holds; 'now': although it may hold
-- Returns  'alive' when its lease holds, else 'dead'
local leases, dead, leaving, unclean, apps = unpack(KEYS)
local node = ARGV[1]
if ARGV[2] == 'lapsed' and tonumber(redis.call('ZSCORE', leases, node) or '0') > now then
  return 'alive'
end
redis.call('ZADD', dead, 'NX', tonumber(ARGV[2]) and ARGV[2] or text(now), node)
redis.call('ZREM', leases, node)
redis.call('SREM', leaving, node)
if redis.call('EXISTS', apps) == 1 then
  redis.call('SADD', unclean, node)
end
return 'dead'
