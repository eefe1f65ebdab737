-- Of several nodes one does something, as long as it says so again in time.
--
-- KEYS  what is done
-- ARGV  the node, for how many ms it wants to be the one; 0: no longer
-- Returns  1 when it is the one
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
