#!/usr/bin/env node
import { CommanderError } from "commander";
import { program } from "./cli/all.js";
import { exitCodes } from "./cli/core.js";

// Whoever reads the output may leave before its end (`| head`): that is no failure, and a server
// goes on without a terminal.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed it already.
    process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  } else {
    process.exitCode = exitCodes.failed;
    console.error(error instanceof Error ? error.message : error);
  }
}
