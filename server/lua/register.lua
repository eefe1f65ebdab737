-- Remembers that a node is about to keep something of an application on this host.
--
-- KEYS  dead, and the applications of which the node keeps something here
-- ARGV  the node, the application
-- Returns  'fenced' when the node was declared dead, else 'registered'
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 'fenced'
end
redis.call('SADD', KEYS[2], ARGV[2])
return 'registered'
