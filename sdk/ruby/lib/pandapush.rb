# frozen_string_literal: true

require_relative "pandapush/version"
require_relative "pandapush/errors"
require_relative "pandapush/client"

# Back ends of Pandapush: see Pandapush::Client.
module Pandapush
end
