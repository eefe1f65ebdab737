# frozen_string_literal: true

# Operates the Ruby SDK: calls come in as JSON lines, `{"call":1,"name":"publish","args":[],"named":{}}`,
# and each is answered by `{"call":1,"result":…}` or `{"call":1,"fault":{…}}`.
require "json"
require "pandapush"

$stdout.sync = true
client = Pandapush::Client.new(**JSON.parse(ARGV.fetch(0), symbolize_names: true))

def fault(error)
  kind = error.is_a?(ArgumentError) ? "argument" : error.class.name.split("::").last
  fields = { kind: kind, message: error.message, inspected: error.full_message }
  return fields unless error.is_a?(Pandapush::Error)

  fields.merge(status: error.status, code: error.code, details: error.details,
    retryAfter: error.retry_after, attempts: error.attempts)
end

# Calls are made together; each has a thread.
$stdin.each_line do |line|
  Thread.new(JSON.parse(line, symbolize_names: true)) do |asked|
    answer =
      begin
        result = client.public_send(asked[:name], *asked[:args], **asked[:named])
        { result: result.is_a?(Pandapush::Page) ? result.to_h : result }
      rescue Pandapush::Error, ArgumentError => e
        { fault: fault(e) }
      end
    $stdout.write("#{JSON.generate(answer.merge(call: asked[:call]))}\n")
  end
end
