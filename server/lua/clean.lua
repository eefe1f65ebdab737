-- What is still to be cleaned up of a dead node, on this host.
--
-- KEYS  unclean, and the applications of which the node kept something here
-- ARGV  the node, how many to name at most, and applications that are clean
-- Returns  some that are not, in no order: those who clean at the same time do different ones
local unclean, apps = unpack(KEYS)
for i = 3, #ARGV do
  redis.call('SREM', apps, ARGV[i])
end
local rest = redis.call('SRANDMEMBER', apps, ARGV[2])
if #rest == 0 then
  redis.call('SREM', unclean, ARGV[1])
end
return rest
