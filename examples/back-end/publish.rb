# frozen_string_literal: true

# Publishes an order, and prints a token with which a browser may subscribe to orders for an hour.
require "pandapush"

pandapush = Pandapush::Client.new(
  url: ENV.fetch("PANDAPUSH_URL"),
  app_id: ENV.fetch("APP_ID"),
  key_id: ENV.fetch("KEY_ID"),
  key_secret: ENV.fetch("KEY_SECRET")
)

pandapush.publish(channel: "orders", message: { id: 7 }, idempotency_key: "order-7")
puts pandapush.generate_token(channel: "orders", channel_type: "private", pub: false, expires_in: 3600)
