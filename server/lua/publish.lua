-- Takes one publication: gives it its place in the sequence of its application on this host, and
-- says it on every topic that somebody may hear it by. Behind say.lua.
--
-- KEYS[1]  the sequence
-- ARGV[1]  the message behind version, epoch and number
-- ARGV[2…] topics
-- Returns  epoch and number, with a space between
return say(KEYS[1], ARGV[1], ARGV, 2, #ARGV)
