#!/usr/bin/env -S node --max-semi-space-size=8
// The flag (in MiB; the start script of the repository gives it too) keeps the heap small of a
// server with many idle clients and costs no measurable time. See bench/README.md.
//
// In the repository from the start, so that npm can link the command before anything is built.
import "../dist/cli.js";
