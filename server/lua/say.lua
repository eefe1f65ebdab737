-- What scripts that publish share.

-- A publication's place in the sequence of its application on this host.
-- sequence  a hash: `count`, and `epoch`, which names the life of this count
-- id        the publication's
local function nextPosition(sequence, id)
  local number = redis.call('HINCRBY', sequence, 'count', 1)
  local epoch = redis.call('HGET', sequence, 'epoch')
  if not epoch then
    -- No other sequence, before this one or on another host, began with the same publication.
    epoch = id
    redis.call('HSET', sequence, 'epoch', epoch)
  end
  return epoch .. ' ' .. string.format('%.0f', number)
end

-- Says a publication on every topic that somebody may hear it by. Nobody sees it without its place,
-- or its place without it.
-- message  what stands behind version, epoch and number; its first word is the publication's id
-- topics   a list, and which of it
local function say(sequence, message, topics, from, to)
  local position = nextPosition(sequence, string.match(message, '^%S+'))
  local said = '1 ' .. position .. ' ' .. message
  for i = from, to do
    redis.call('PUBLISH', topics[i], said)
  end
  return position
end
