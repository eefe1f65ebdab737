# The Ruby examples of the documentation, with their values from the environment: a push over REST
# with HTTParty, and a token made with the jwt gem. Prints {"status":…,"body":…,"token":…}.
require "httparty"
require "json"
require "jwt"

response = HTTParty.post(ENV.fetch("PUBLISH_URL"),
  basic_auth: {
    username: ENV.fetch("KEY_ID"),
    password: ENV.fetch("KEY_SECRET")
  },
  body: {
    foo: "bar"
  })

token = JWT.encode({
  keyId: ENV.fetch("KEY_ID"),
  channel: ENV.fetch("CHANNEL"),
  pub: true
}, ENV.fetch("KEY_SECRET"))

puts JSON.generate(status: response.code, body: response.body, token: token)
