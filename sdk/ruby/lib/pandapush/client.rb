# frozen_string_literal: true

require "json"
require "openssl"
require "securerandom"
require "uri"
require_relative "errors"
require_relative "requests"
require_relative "version"

module Pandapush
  # Some of what there is, and how much there is in all.
  Page = Struct.new(:items, :total)

  # An application at a Pandapush server, for its back end. Threads may share one.
  #
  #   pandapush = Pandapush::Client.new(url: "https://push.example.com", app_id: "APP_ID",
  #     key_id: "KEY_ID", key_secret: "KEY_SECRET")
  #   pandapush.publish(channel: "orders", message: { id: 7 })
  #
  # A channel is named without application and type: `orders/7`, whose type is "private" unless
  # `channel_type` says "public" or "presence". A whole name, `/APP_ID/public/news`, is taken as well.
  # What is wrong with an argument raises an ArgumentError; all else a Pandapush::Error.
  class Client
    # Seconds that a token lasts.
    TOKEN_LIFE = 86_400
    TYPES = %w[public private presence].freeze
    # Seconds before what a batch failed in is tried again; each further time twice as long.
    BATCH_WAIT = 0.5
    NAME = %r{\A/([\w~-]+)/(public|private|presence|meta)(?:/[\w~-]+)*(/\*\*?)?\z}
    private_constant :BATCH_WAIT, :NAME

    attr_reader :app_id

    # timeout  seconds that connecting, sending and each wait for an answer may take, of each attempt
    # retries  how often a call is tried again at most
    def initialize(url:, app_id:, key_id:, key_secret:, timeout: 10, retries: 2)
      { app_id: app_id, key_id: key_id, key_secret: key_secret }.each do |name, value|
        raise ArgumentError, "#{name} must be a text" unless value.is_a?(String) && !value.empty?
      end
      raise ArgumentError, "app_id has letters, digits, - _ ~ only" unless app_id.match?(/\A[\w~-]+\z/)
      raise ArgumentError, "key_id has no colon" if key_id.include?(":")

      @app_id = app_id
      @key_id = key_id
      @key_secret = key_secret
      @requests = Requests.new(url, key_id, key_secret, timeout: timeout, retries: retries)
    end

    # Returns true when the server has taken it for delivery.
    #
    # message          any JSON value
    # idempotency_key  names what is published: of several calls with the same one, channel and
    #                  message, within five minutes, one publishes. 1 to 255 visible ASCII characters.
    #                  Unless given, one for each call, so that its own attempts are one.
    def publish(channel:, message:, channel_type: "private", idempotency_key: SecureRandom.uuid)
      name = concrete(channel, channel_type)
      body = to_json_text(message)
      answer = @requests.send_request("POST", "/channel#{name}", body: body, idempotency_key: idempotency_key)
      raise not_pandapush unless answer.body == "OK"

      true
    end

    # Publishes to several channels in one request, in their order; each is answered by itself. What
    # fails for the time being is tried again, and what was taken is not.
    #
    # messages  each { channel:, message:, channel_type: "private" }
    #
    # Returns for each, in order, { "channel" => …, "successful" => true }, or with false and
    # "error" => { "code", "params", "message", "details" }.
    def publish_batch(messages, idempotency_key: SecureRandom.uuid)
      body = to_json_text(messages: messages.map { |each| batch_message(**each) })
      attempt = 1
      loop do
        results = read(@requests.send_request("POST", "/api/#{@app_id}/publish", body: body,
          idempotency_key: idempotency_key))["results"]
        return results if attempt > @requests.retries || results.none? { |result| passing?(result) }

        sleep(BATCH_WAIT * (2**(attempt - 1)) * (0.5 + (rand / 2)))
        attempt += 1
      end
    end

    # A token for a browser, which must not have the secret: a JWT. Asks no server.
    #
    # channel     may end in /* or /**
    # presence    who its bearer is on a presence channel: a hash with an id and what else you like
    # expires_in  seconds; nil: it never ends
    def generate_token(channel:, channel_type:, pub: true, sub: true, presence: nil, expires_in: TOKEN_LIFE)
      claims = { keyId: @key_id, channel: full_name(channel, channel_type), pub: pub, sub: sub }
      if presence
        id = presence[:id] || presence["id"]
        raise ArgumentError, "presence must have an id" if id.nil? || id == ""

        claims[:presence] = presence
      end
      claims[:exp] = Time.now.to_i + expires_in.to_i if expires_in
      signed = "#{encode(JSON.generate(alg: "HS256", typ: "JWT"))}.#{encode(JSON.generate(claims))}"
      "#{signed}.#{encode(OpenSSL::HMAC.digest("SHA256", @key_secret, signed))}"
    end

    # What somebody is subscribed to at this moment, the busiest first; patterns too. A Page of
    # { "channel", "subscribers" } and of presence channels "members".
    #
    # prefix  how names begin: "private/ord"
    def channels(prefix: nil, limit: nil, offset: nil)
      page("/channels", prefix: prefix, limit: limit, offset: offset)
    end

    # { "channel", "subscribers", "listeners" } of a channel or pattern; where nobody is, both are 0.
    def channel(channel:, channel_type: "private")
      get("/channels/#{rest(full_name(channel, channel_type))}")
    end

    # Who is present: what their tokens say of them, by their ids.
    def presence(channel:, channel_type: "presence")
      name = concrete(channel, channel_type)
      unless name.start_with?("/#{@app_id}/presence/")
        raise ArgumentError, "Nobody is present on #{name}; a presence channel is named presence/…"
      end

      get("/#{rest(name)}")["members"]
    end

    # Sessions that are subscribed to something in the application, the newest first: a Page of hashes
    # as docs/rest.md shows them.
    #
    # search  a part of anything that is shown
    def connections(search: nil, limit: nil, offset: nil)
      page("/connections", search: search, limit: limit, offset: offset)
    end

    # Ends all that a connection is subscribed to in the application; it may subscribe again. Returns
    # whether there was one.
    def disconnect(connection_id)
      end_all("/connections", connection_id).positive?
    rescue RequestError => e
      raise unless e.status == 404

      false
    end

    # The same for every connection that is present as this user. Returns how many there were.
    def disconnect_user(presence_id)
      end_all("/users", presence_id)
    end

    # What was refused in the application lately, the last first: a Page of hashes as docs/rest.md
    # shows them.
    def refusals(limit: nil, offset: nil)
      page("/refusals", limit: limit, offset: offset)
    end

    # Without the secret.
    def inspect
      "#<#{self.class} app_id: #{@app_id.inspect}, key_id: #{@key_id.inspect}>"
    end

    private

    def batch_message(channel:, message:, channel_type: "private")
      { channel: concrete(channel, channel_type), data: message }
    end

    def to_json_text(value)
      JSON.generate(value)
    rescue JSON::GeneratorError, JSON::NestingError => e
      raise ArgumentError, "What is published must be a JSON value: #{e.message}"
    end

    def passing?(result)
      code = result.dig("error", "code").to_i
      !result["successful"] && (code == 429 || code >= 500)
    end

    def full_name(channel, type)
      text = channel.to_s
      type = type.to_s
      raise ArgumentError, "channel_type must be one of #{TYPES.join(", ")}" unless [*TYPES, "meta"].include?(type)

      # With or without a slash in front.
      whole = text.match?(%r{\A/#{Regexp.escape(@app_id)}/(?:public|private|presence|meta)(?:/|\z)})
      name = whole ? text : "/#{@app_id}/#{type}/#{text.delete_prefix("/")}"
      unless NAME.match?(name)
        raise ArgumentError, "#{text.inspect} is no channel; its segments have letters, digits, - _ ~"
      end

      name
    end

    def concrete(channel, type)
      name = full_name(channel, type)
      raise ArgumentError, "#{channel} is a pattern; name one of its channels" if name.end_with?("*")

      name
    end

    # What is behind the application's id.
    def rest(name)
      name[(@app_id.length + 2)..]
    end

    def get(path)
      read(@requests.send_request("GET", "/api/#{@app_id}#{path}"))
    end

    def page(path, **query)
      given = URI.encode_www_form(query.compact)
      answer = @requests.send_request("GET", "/api/#{@app_id}#{path}#{"?" unless given.empty?}#{given}")
      items = read(answer)
      Page.new(items, (answer["x-total-count"] || items.length).to_i)
    end

    # The second time it would say that there was nobody.
    def end_all(path, id)
      escaped = URI.encode_www_form_component(id.to_s).gsub("+", "%20")
      path = "/api/#{@app_id}#{path}/#{escaped}/disconnect"
      read(@requests.send_request("POST", path, repeatable: false))["disconnected"]
    end

    def read(answer)
      JSON.parse(answer.body)
    rescue JSON::ParserError
      raise not_pandapush
    end

    def not_pandapush
      RequestError.new("What answers at this url is not Pandapush")
    end

    def encode(text)
      [text].pack("m0").tr("+/", "-_").delete("=")
    end
  end
end
