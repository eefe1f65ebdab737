# frozen_string_literal: true

require "json"

module Pandapush
  # Why a call failed. Its classes say what can be done: other credentials (AuthenticationError),
  # another request (RequestError), later (ServerError, ConnectionError, TimeoutError).
  class Error < StandardError
    # Of HTTP; nil when no answer came.
    attr_reader :status
    # The server's own code, such as 503; nil where it gives none.
    attr_reader :code
    attr_reader :params
    # What was wrong and what is allowed, where the server says so.
    attr_reader :details
    # In seconds: when the server wants to be asked again.
    attr_reader :retry_after
    # How often it was tried.
    attr_reader :attempts

    def initialize(message, status: nil, code: nil, params: [], details: nil, retry_after: nil, attempts: 1)
      super(details ? "#{message}: #{details}" : message)
      @status = status
      @code = code
      @params = params
      @details = details
      @retry_after = retry_after
      @attempts = attempts
    end
  end

  # The key or its secret does not hold, or not for this application.
  class AuthenticationError < Error; end

  # The server does not take this request, however often it is sent.
  class RequestError < Error; end

  # The server cannot do it at the moment. What was published may have been delivered.
  class ServerError < Error; end

  # No answer came; `cause` has the reason. What was published may have been delivered.
  class ConnectionError < Error; end

  # No answer came in time. What was published may have been delivered.
  class TimeoutError < Error; end

  class Error
    # What the server says of credentials that do not hold, whatever the status (AUTH-3 to AUTH-11).
    UNAUTHENTICATED =
      /\A(?:Unauthorized|No auth|Auth information|Invalid (?:token|secret)|Could not find key|(?:Expired|Revoked) key)/
    MAX_QUOTED = 200
    private_constant :UNAUTHENTICATED, :MAX_QUOTED

    # From an answer that is no success.
    def self.from(status, body, retry_after, attempts)
      message, fields = read(body)
      message ||= "The server answered #{status}"
      kind =
        if status == 429 || status >= 500 then ServerError
        elsif UNAUTHENTICATED.match?(message) then AuthenticationError
        else RequestError
        end
      kind.new(message, status: status, retry_after: retry_after, attempts: attempts, **fields)
    end

    def self.read(body)
      said = JSON.parse(body)
      return said["message"], { code: said["code"], params: said["params"] || [], details: said["details"] } if
        said.is_a?(Hash) && said["message"].is_a?(String)

      [nil, {}]
    rescue JSON::ParserError
      # A text, of the server or of a proxy in front of it.
      line = body.dup.force_encoding(Encoding::UTF_8).scrub.strip.lines.first.to_s.strip
      [line.empty? || line.start_with?("<") ? nil : line[0, MAX_QUOTED], {}]
    end
    private_class_method :read
  end
end
