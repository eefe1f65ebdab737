# frozen_string_literal: true

require "net/http"
require "openssl"
require "time"
require "uri"

module Pandapush
  # One request and its answer, with time limits and repetitions. Threads may share it.
  class Requests
    # Seconds before another attempt; each further one is twice as long.
    FIRST_WAIT = 0.2
    LONGEST_WAIT = 5
    # Who is told to come back later than this is not kept waiting.
    LONGEST_RETRY_AFTER = 30
    FAULTS = [SystemCallError, SocketError, IOError, OpenSSL::SSL::SSLError, Net::ProtocolError,
      Net::HTTPBadResponse].freeze
    private_constant :FIRST_WAIT, :LONGEST_WAIT, :LONGEST_RETRY_AFTER, :FAULTS

    attr_reader :retries

    def initialize(url, key_id, key_secret, timeout:, retries:)
      @base = parse(url)
      @authorization = "Basic #{["#{key_id}:#{key_secret}"].pack("m0")}"
      @timeout = timeout
      @retries = retries
    end

    # path       behind the server's address, with its query
    # repeatable whether it does no harm when it is done twice; else it is sent again only after
    #            answers that say it was not done
    #
    # Returns a Net::HTTPSuccess; raises Error.
    def send_request(method, path, body: nil, idempotency_key: nil, repeatable: true)
      attempt = 1
      begin
        send_once(method, path, body, idempotency_key, attempt)
      rescue Error => e
        wait = wait_before(attempt, e, repeatable)
        raise if wait.nil? || attempt > @retries

        sleep(wait)
        attempt += 1
        retry
      end
    end

    def inspect
      "#<#{self.class} #{@base}>"
    end

    private

    def parse(url)
      uri = URI.parse(url.to_s)
      unless uri.is_a?(URI::HTTP) && uri.host
        raise ArgumentError, "url must be the server's address, such as https://push.example.com"
      end
      raise ArgumentError, "url has no user name and no password; they are key_id and key_secret" if uri.userinfo

      uri.path = uri.path.sub(%r{/+\z}, "")
      uri.query = uri.fragment = nil
      uri
    rescue URI::InvalidURIError
      raise ArgumentError, "url must be the server's address, such as https://push.example.com"
    end

    def send_once(method, path, body, idempotency_key, attempts)
      request = Net::HTTPGenericRequest.new(method, !body.nil?, true, @base.path + path)
      request["Authorization"] = @authorization
      request["User-Agent"] = "pandapush-ruby/#{VERSION}"
      request["Idempotency-Key"] = idempotency_key if idempotency_key
      if body
        request["Content-Type"] = "application/json"
        request.body = body
      elsif method == "POST"
        request["Content-Length"] = "0"
      end
      response = connection.start { |http| http.request(request) }
      return response if response.is_a?(Net::HTTPSuccess)

      raise Error.from(response.code.to_i, said(response), retry_after(response), attempts)
    rescue Timeout::Error
      raise TimeoutError.new("No answer within #{@timeout} s", attempts: attempts)
    rescue *FAULTS => e
      raise ConnectionError.new("No answer from #{@base.host}:#{@base.port}: #{e.message}", attempts: attempts)
    end

    def connection
      http = Net::HTTP.new(@base.hostname, @base.port)
      http.use_ssl = @base.is_a?(URI::HTTPS)
      http.open_timeout = http.read_timeout = http.write_timeout = @timeout
      # Its own repetitions know nothing of what is safe.
      http.max_retries = 0
      http
    end

    def said(response)
      location = response["location"]
      return response.body.to_s unless response.is_a?(Net::HTTPRedirection) && location

      "The server redirects to #{location}; give its own address as url"
    end

    # In seconds. RFC 9110, section 10.2.3
    def retry_after(response)
      value = response["retry-after"]
      return if value.nil?
      return value.to_i if value.match?(/\A\d+\z/)

      [(Time.httpdate(value) - Time.now).ceil, 0].max
    rescue ArgumentError
      nil
    end

    # In seconds; nil when it is not to be tried again.
    def wait_before(attempt, error, repeatable)
      not_done = [429, 503].include?(error.status)
      may_pass = error.status.nil? || not_done || [502, 504].include?(error.status)
      return unless repeatable ? may_pass : not_done

      asked = error.retry_after || 0
      return if asked > LONGEST_RETRY_AFTER

      most = [FIRST_WAIT * (2**(attempt - 1)), LONGEST_WAIT].min
      # Many who failed together do not come back together.
      asked + (most * (0.5 + (rand / 2)))
    end
  end
  private_constant :Requests
end
