-- The time of Redis, in ms since 1970: the only clock that leases go by.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- As text, whole: Lua would write large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end
