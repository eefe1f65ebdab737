-- Ends a claim of claim.lua.
--
-- KEYS[1]  the record
-- ARGV     the owner, how long the record lasts, and if there is an outcome '1' if it is final, else
--          '0', and its text
-- Returns  whether the claim still stood
local record = KEYS[1]
if redis.call('HGET', record, 'owner') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', record, 'owner', 'until')
if ARGV[3] then
  redis.call('HSET', record, 'final', ARGV[3], 'text', ARGV[4])
  redis.call('PEXPIRE', record, ARGV[2])
elseif redis.call('HEXISTS', record, 'text') == 0 then
  redis.call('DEL', record)
end
return 1
