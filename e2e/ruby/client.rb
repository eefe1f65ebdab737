# Operates Faye's Ruby client: commands come in as JSON lines, reports go out as JSON lines; their
# shapes are those of Command and Report in clients/client.ts.
require "eventmachine"
require "faye"
require "json"

ENDPOINT, TRANSPORT = ARGV
$stdout.sync = true

def report(fields)
  puts JSON.generate(fields)
end

class Agent
  def initialize(client)
    @client = client
    @subscribe_auth = {}
    @publish_auth = {}
    @unsubscribes = {}
    client.add_extension(self)
  end

  def operate(command)
    call = command["call"]
    case command["name"]
    when "subscribe"
      @subscribe_auth[command["pattern"]] = command["auth"]
      subscription = @client.subscribe(command["pattern"]) do |data|
        report(kind: "heard", call: call, data: data)
      end
      answer(call, subscription)
    when "unsubscribe"
      @unsubscribes[command["pattern"]] = call
      @client.unsubscribe(command["pattern"])
    when "publish"
      @publish_auth[command["channel"]] = command["auth"]
      answer(call, @client.publish(command["channel"], command["data"]))
    when "disconnect"
      answer(call, @client.disconnect)
    end
  end

  def outgoing(message, callback)
    if message["channel"] == "/meta/connect"
      report(kind: "connecting", connectionType: message["connectionType"])
    end
    auth = if message["channel"] == "/meta/subscribe"
      @subscribe_auth[message["subscription"]]
    else
      @publish_auth[message["channel"]]
    end
    (message["ext"] ||= {})["auth"] = auth if auth
    callback.call(message)
  end

  def incoming(message, callback)
    if message["channel"] == "/meta/subscribe" && message["successful"]
      presence = message.dig("ext", "presence")
      report({ kind: "subscribed", pattern: message["subscription"], presence: presence }.compact)
    elsif message["channel"] == "/meta/unsubscribe"
      call = @unsubscribes[message["subscription"]]
      report({ kind: "answer", call: call, error: message["error"] }.compact)
    elsif !message.key?("successful")
      report(message.slice("channel", "data", "ext").merge(kind: "event"))
    end
    callback.call(message)
  end

  private

  def answer(call, promise)
    promise.callback { report(kind: "answer", call: call) }
    promise.errback { |error| report(kind: "answer", call: call, error: error.message) }
  end
end

module Commands
  include EventMachine::Protocols::LineText2

  def initialize(agent)
    super()
    @agent = agent
  end

  def receive_line(line)
    @agent.operate(JSON.parse(line))
  end

  # The test has gone.
  def unbind(*)
    EventMachine.stop
  end
end

EventMachine.run do
  client = Faye::Client.new(ENDPOINT, retry: 1)
  client.disable("websocket") unless TRANSPORT == "websocket"
  EventMachine.attach($stdin, Commands, Agent.new(client))
end
