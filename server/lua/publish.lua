-- Takes one publication: gives it its place in the sequence of its application on this host, and
-- says it on every topic that somebody may hear it by. Nobody sees one without the other.
--
-- KEYS[1]  the sequence, a hash: `count`, and `epoch`, which names the life of this count
-- ARGV[1]  the message behind version, epoch and number; its first word is the publication's id
-- ARGV[2…] topics
-- Returns  epoch and number, with a space between
local number = redis.call('HINCRBY', KEYS[1], 'count', 1)
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  -- No other sequence, before this one or on another host, began with the same publication.
  epoch = string.match(ARGV[1], '^%S+')
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
local position = epoch .. ' ' .. string.format('%.0f', number)
local message = '1 ' .. position .. ' ' .. ARGV[1]
for i = 2, #ARGV do
  redis.call('PUBLISH', ARGV[i], message)
end
return position
