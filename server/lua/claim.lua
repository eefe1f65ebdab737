-- Claims a request that is to be done once. Behind time.lua.
--
-- KEYS[1]  its record, a hash: `request`, its fingerprint; `text` and `final` ('1' or '0'), the last
--          outcome; and while somebody is at it `owner` and `until`, when that one counts as dead
-- ARGV     fingerprint, the new owner, for how long it counts as alive, how long the record lasts
-- Returns  'done' and its text, 'pending', 'different', or 'mine' and the text of an outcome that was
--          not final, if there is one
local record = KEYS[1]
local request, outcome, final, leased = unpack(
  redis.call('HMGET', record, 'request', 'text', 'final', 'until'))
if request and request ~= ARGV[1] then
  return { 'different' }
end
if leased and tonumber(leased) > now then
  return { 'pending' }
end
if final == '1' then
  return { 'done', outcome }
end
redis.call('HSET', record, 'request', ARGV[1], 'owner', ARGV[2], 'until', text(now + ARGV[3]))
redis.call('PEXPIRE', record, math.max(ARGV[3], ARGV[4]))
if outcome then
  return { 'mine', outcome }
end
return { 'mine' }
