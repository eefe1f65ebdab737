# frozen_string_literal: true

require_relative "lib/pandapush/version"

Gem::Specification.new do |spec|
  spec.name = "pandapush"
  spec.version = Pandapush::VERSION
  spec.summary = "For back ends: publish over Pandapush, sign channel tokens, see who is connected and present"
  spec.authors = ["Pandapush"]
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.0"
  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "README.md"] }
  spec.metadata["rubygems_mfa_required"] = "true"
end
