-- Whether a node lives, as far as this host knows. Behind time.lua.
--
-- KEYS  leases, dead, and since when leases are kept
-- ARGV  the node, and how long a lease lasts in ms
-- Returns  'dead' when it was declared dead, 'alive', 'absent', or 'unknown': it may live and not have
--          had the time to say so
local leases, dead, since = unpack(KEYS)
if redis.call('ZSCORE', dead, ARGV[1]) then
  return 'dead'
end
if redis.call('ZSCORE', leases, ARGV[1]) then
  return 'alive'
end
if tonumber(redis.call('GET', since) or text(now)) + ARGV[2] > now then
  return 'unknown'
end
return 'absent'
