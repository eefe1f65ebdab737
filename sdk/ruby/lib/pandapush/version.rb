# frozen_string_literal: true

module Pandapush
  VERSION = "2.1.0.dev"
end
